// The stored numbers: NaN, very small ones, float64, the same data twice. As course_utils/diagnosis/findings/numbers.py has it.

import { elements, isOp, opType, standard } from "./patient.js";
import { amount, count, finding, listed, place, plain } from "./words.js";
import { bytesOf, checksum, DOUBLE, FLOATS, oddNumbers, sameBytes } from "./weights.js";

const some = (n) => n.toLocaleString("en");

/** NaN, infinity or very small numbers in weights. */
export function* finite(patient) {
  const { FEW, SHARE } = patient.tables.numbers;
  const [found, small] = [[], []];
  let seen = 0;
  for (const read of readTensors(patient)) {
    const n = oddNumbers(patient, read.tensor);
    if (!n) continue; // its file is missing, or its data is damaged: other checks say so
    const where = place("tensor", read.name, null, read.scope.label);
    const infinite = read.multiplied ? n.above + n.below : read.lookedUp ? n.above : 0;
    if (n.nan || infinite) found.push([where, n.nan, infinite]);
    seen += elements(read.tensor.dims);
    if (n.subnormal) small.push([where, n.subnormal]);
  }
  if (found.length) {
    const [nan, infinite] = [1, 2].map((i) => found.reduce((sum, item) => sum + item[i], 0));
    const text = `NaN: ${some(nan)}, infinite: ${some(infinite)}, in ${count(found.length, "tensor")}.`;
    yield finding("weights-not-finite", text, found.map(([at]) => at));
  }
  const tiny = small.reduce((sum, [, n]) => sum + n, 0);
  if (tiny >= FEW && tiny > seen * SHARE) {
    const text = `${some(tiny)} of ${some(seen)} weights are subnormal: other than zero, and smaller than 1.2e-38, the smallest in usual form.`;
    yield finding("subnormal-numbers", text, small.sort((a, b) => b[1] - a[1]).map(([at]) => at));
  }
}

/** Each stored float tensor that a node computes with, once; also where nodes stand between that only move it.
 * What its readers do: multiply it, look up rows in it; weight: of a layer. */
function readTensors(patient) {
  if (patient.readTensors) return patient.readTensors;
  const T = patient.tables.numbers;
  const found = new Map();
  const known = new Map();
  for (const [scope, , node] of patient.eachNode()) {
    if (standard(node) ? T.HARMLESS.includes(opType(node)) : node.domain !== "com.microsoft") continue;
    const layer = isOp(node, T.MULTIPLIES);
    for (const name of node.input.slice(0, T.STORED_IN[opType(node)])) {
      for (const [where, stored, tensor, lookedUp] of constants(patient, scope, name, known, T.DEEPEST)) {
        if (!found.has(tensor)) found.set(tensor, { scope: where, name: stored, tensor, weight: false, multiplied: false, lookedUp: false });
        const read = found.get(tensor);
        read.weight ||= layer || lookedUp;
        read.multiplied ||= layer || isOp(node, T.SCALES);
        read.lookedUp ||= lookedUp && !isOp(node, T.BOUNDS);
      }
    }
  }
  patient.readTensors = [...found.values()];
  return patient.readTensors;
}

/** The stored float tensors that a name stands for, wholly or in part; the last says whether rows are looked up in it. */
function constants(patient, scope, name, known, left) {
  const T = patient.tables.numbers;
  if (!known.has(scope)) known.set(scope, new Map());
  const here = known.get(scope);
  if (here.has(name) || !left) return here.get(name) ?? [];
  const found = [];
  here.set(name, found);
  const node = scope.nodes[scope.producer.get(name)];
  if (node && isOp(node, T.CARRIES)) {
    for (const carried of opType(node) === "Concat" ? node.input : node.input.slice(0, 1)) {
      const inner = [...constants(patient, scope, carried, known, left - 1)];
      for (const [s, n, t, up] of inner) found.push([s, n, t, up || T.LOOKS_UP.includes(opType(node))]);
    }
  } else if (node || scope.initializers.has(name)) {
    const tensor = patient.stored(scope, name);
    if (tensor && FLOATS.includes(tensor.data_type)) found.push([scope, tensor.name || name, tensor, false]);
  } else if (!scope.inputNames.has(name) && scope.outer) {
    found.push(...constants(patient, scope.outer, name, known, left - 1));
  }
  return found;
}

export function* float64(patient) {
  let [double, others] = [0, 0];
  const places = [];
  for (const read of readTensors(patient).filter((r) => r.weight)) {
    const size = elements(read.tensor.dims);
    if (read.tensor.data_type === DOUBLE) {
      double += size;
      places.push(place("tensor", read.name, null, read.scope.label));
    } else others += size;
  }
  if (double > Math.floor(others / 10)) {
    const fed = patient.inputValues().filter((v) => v.type?.tensor_type?.elem_type === DOUBLE);
    const inputs = fed.length ? ` Inputs of float64: ${listed(fed.map((v) => v.name))}.` : "";
    yield finding("float64", `${some(double)} weights are float64, ${some(others)} are not.${inputs}`, places);
  }
}

/** Tensors of the same dtype, shape and data. */
export function* twice(patient) {
  const alike = new Map();
  for (const scope of patient.scopes) {
    for (const tensor of scope.initializers.values()) {
      const kind = `${tensor.data_type} ${tensor.dims}`;
      if (!alike.has(kind)) alike.set(kind, []);
      alike.get(kind).push([place("tensor", tensor.name ?? "", null, scope.label), tensor]);
    }
  }
  let wasted = 0;
  const places = [];
  for (const group of alike.values()) {
    for (const copies of group.length > 1 ? same(patient, group) : []) {
      wasted += (patient.expectedBytes(copies[0][1]) ?? 0) * (copies.length - 1);
      places.push(...copies.map(([at]) => at));
    }
  }
  if (wasted > Math.max(64 * 1024, Math.floor(patient.weightsBytes / 20))) {
    const example = places.slice(0, 2).map((p) => `'${plain(p.name)}'`).join(" and ");
    const text = `${amount(wasted)} of ${amount(patient.weightsBytes)} could be left out, for example of ${example}.`;
    yield finding("weights-stored-twice", text, places);
  }
}

/** Those of a group that hold the same data. */
function same(patient, group) {
  const sums = new Map();
  for (const [where, tensor] of group) {
    const bytes = bytesOf(patient, tensor);
    if (!bytes) continue;
    const sum = checksum(bytes);
    if (!sums.has(sum)) sums.set(sum, []);
    const kept = sums.get(sum).find(([first]) => sameBytes(first, bytes));
    if (kept) kept[1].push([where, tensor]);
    else sums.get(sum).push([bytes, [[where, tensor]]]);
  }
  return [...sums.values()].flat().map(([, copies]) => copies).filter((copies) => copies.length > 1);
}

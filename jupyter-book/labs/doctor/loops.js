// Loops that were written out step by step. How they are found is told in course_utils/diagnosis/findings/loops.py.

import { checksum, sameBytes } from "./weights.js";
import { elements, isOp, opType } from "./patient.js";
import { count, finding } from "./words.js";

export function* unrolled(patient) {
  const { LEAST_STEPS, LEAST_NODES, LONGEST_STEP } = patient.tables.loops;
  const scope = patient.main;
  const index = [...scope.nodes.keys()].filter((i) => !isOp(scope.nodes[i], ["Constant", "Identity"]));
  const numbers = new Map();
  const does = index.map((i) => {
    const what = whatItDoes(patient, scope, scope.nodes[i]);
    if (!numbers.has(what)) numbers.set(what, numbers.size);
    return numbers.get(what);
  });
  const doesOf = new Map(index.map((i, at) => [i, does[at]]));
  const taken = new Uint8Array(index.length);
  for (let period = 1; period <= Math.min(LONGEST_STEP, Math.floor(index.length / LEAST_STEPS)); period += 1) {
    for (const [start, stop] of runs(does, period, (LEAST_STEPS - 1) * period)) {
      const steps = Math.floor((stop - start) / period) + 1; // the last step has no partner behind it
      const end = start + steps * period;
      if (steps * period < LEAST_NODES || taken.subarray(start, end).some(Boolean)) continue; // two steps are a period, too
      const [first, second] = [0, 1].map((step) => index.slice(start + step * period, start + (step + 1) * period).map((i) => scope.nodes[i]));
      if (!first.some((node) => computes(patient, node)) || otherModules(patient, first, second)) continue;
      if (!isLoop(patient, scope, index.slice(start, end), period, doesOf)) continue;
      taken.fill(1, start, end);
      const ops = first.map(opType);
      const shown = ops.slice(0, 6).join(", ") + (period > 6 ? " …" : "");
      const text = `${steps} steps of ${count(period, "node")} each (${shown}), which read the same weights, or none.`;
      yield finding("loop-unrolled", text, index.slice(start, end).map((i) => scope.place(i)));
    }
  }
}

/** Whether a node makes something new of several tensors: a sum, a product, a layer. */
function computes(patient, node) {
  return node.input.filter(Boolean).length > 1 && !isOp(node, patient.tables.loops.MOVES);
}

/** Whether most nodes of one step come from other modules than their partners in the next step. */
function otherModules(patient, first, second) {
  const others = first.filter((node, i) => moduleOf(patient, node) !== moduleOf(patient, second[i]));
  return others.length > Math.floor(first.length / 2);
}

/** The module that a node comes from, as the exporters of PyTorch write it; empty where nothing tells. */
function moduleOf(patient, node) {
  const longest = patient.tables.loops.LONGEST_NAME;
  const scopes = node.metadata_props.find((entry) => entry.key === "pkg.torch.onnx.name_scopes");
  if (scopes) return [...(scopes.value ?? "").slice(0, longest).matchAll(/'([^']*)'/g)].map((m) => m[1]).slice(0, -1).join("'");
  const name = (node.name ?? "").slice(0, longest).replace(/_\d+(?=\/)/g, "");
  return name.slice(0, Math.max(0, name.lastIndexOf("/")));
}

const isIndex = (patient, tensor) => patient.tables.loops.INTEGERS.includes(tensor.data_type) && elements(tensor.dims) <= 1;

/** What a node does, as text: the same for the same operator, attributes and stored inputs. */
function whatItDoes(patient, scope, node) {
  const parts = [node.domain ?? "", opType(node), ...node.attribute.map((a) => content(patient, a)).sort()];
  for (const name of node.input) {
    const tensor = patient.stored(scope, name);
    if (!tensor) parts.push(name ? "." : "-");
    else if (isIndex(patient, tensor)) parts.push("#");
    else if (tensor.name && scope.initializers.has(tensor.name)) parts.push(`i ${tensor.name}`);
    else parts.push(content(patient, { ...tensor, name: undefined }));
  }
  return JSON.stringify(parts);
}

/** All that a message holds, as text; bytes as a number, which is given to each content once. */
function content(patient, message) {
  patient.contents ??= new Map();
  return JSON.stringify(message, (_, value) => {
    if (typeof value === "bigint") return `${value}n`;
    if (typeof value === "number" && !Number.isFinite(value)) return `${value}`;
    if (!(value instanceof Uint8Array)) return value;
    const sum = checksum(value);
    if (!patient.contents.has(sum)) patient.contents.set(sum, []);
    const known = patient.contents.get(sum);
    let at = known.findIndex((other) => sameBytes(other, value));
    if (at < 0) at = known.push(value) - 1;
    return `bytes ${sum} ${at}`;
  });
}

/** [start, stop] of stretches of at least `least` places where the same stands one period later. */
function runs(does, period, least) {
  const found = [];
  let start = 0;
  for (let i = 0; i <= does.length - period; i += 1) {
    if (i < does.length - period && does[i] === does[i + period]) continue;
    if (i - start >= least) found.push([start, i]);
    start = i + 1;
  }
  return found;
}

/** Whether each step reads a result of the step before, and all steps read the same from outside. */
function isLoop(patient, scope, index, period, does) {
  const loop = new Set(index.flatMap((i) => scope.nodes[i].output.filter(Boolean)));
  const outside = new Set();
  let before = new Set();
  for (let start = 0; start < index.length; start += period) {
    const step = index.slice(start, start + period).map((i) => scope.nodes[i]);
    const reads = step.flatMap((node) => node.input);
    if (start && !reads.some((name) => before.has(name))) return false;
    outside.add(JSON.stringify(reads.filter((name) => !loop.has(name)).map((name) => origin(patient, scope, name, does, 4))));
    before = new Set(step.flatMap((node) => node.output.filter(Boolean)));
  }
  return outside.size <= 2; // the first step reads its start from outside, where the others read the step before
}

/** Where a tensor from outside the loop comes from: equal for pieces of one tensor, and for numbers such as indices.
 * depth: how many nodes back. Two results of one node, as of Split, are pieces of one tensor. */
function origin(patient, scope, name, does, depth) {
  const producer = scope.producer.get(name);
  if (producer === undefined) {
    const tensor = scope.initializers.get(name);
    return tensor && isIndex(patient, tensor) ? "#" : `n ${name}`;
  }
  if (!does.has(producer)) return "constant"; // Constant or Identity: what it holds is in the number of the reader
  if (depth === 0) return producer;
  return [does.get(producer), scope.nodes[producer].input.filter(Boolean).map((n) => origin(patient, scope, n, does, depth - 1))];
}

// The graph as a whole: typed inputs, nothing in it for nothing, no function that calls itself.
// As course_utils/diagnosis/findings/structure.py has it.

import { before } from "./names.js";
import { domain, elements, innerGraphs, isOp, key, opType } from "./patient.js";
import { amount, count, finding, listed, place, plain } from "./words.js";

/** Inputs of the main graph without a type, or with one that does not say of what. */
export function* types(patient) {
  const found = patient.graph.input.filter((v) => !says(v.type)).map((v) => v.name ?? "");
  if (found.length) {
    const where = found.map((name) => place("input", name));
    yield finding("input-type-missing", `${count(found.length, "input")}: ${listed(found)}.`, where);
  }
}

/** Whether a type says what is in it, down to the dtype. */
function says(type) {
  let kind = type;
  while (kind) {
    const tensor = kind.tensor_type ?? kind.sparse_tensor_type;
    if (tensor) return Boolean(tensor.elem_type);
    if (kind.map_type || kind.opaque_type) return true;
    kind = (kind.sequence_type ?? kind.optional_type)?.elem_type;
  }
  return false;
}

/** Nodes and weights that nobody reads, names that repeat, weights that are inputs. */
export function* tidy(patient) {
  const { LEAST_WEIGHT } = patient.tables.structure;
  const [dead, names, unused, inputs] = [[], [], [], []];
  for (const scope of patient.scopes) {
    const live = liveNodes(scope);
    const given = new Map();
    scope.nodes.forEach((node, i) => {
      if (!live.has(i)) dead.push(scope.place(i));
      // ONNX Runtime takes Constants out of the graph before it looks at the names.
      if (node.name && !isOp(node, ["Constant"])) given.set(node.name, [...(given.get(node.name) ?? []).slice(-1), i]);
    });
    scope.nodes.forEach((node, i) => {
      if (!isOp(node, ["Constant"]) && given.get(node.name)?.length > 1) names.push(scope.place(i));
    });
    for (const [name, tensor] of scope.initializers) if (!scope.isRead(name)) unused.push([scope, tensor]);
    if (patient.irVersion < 4) continue;
    for (const name of scope.inputs) {
      // A single number or a short list is an input with a default value, as it should be.
      const tensor = scope.initializers.get(name);
      if (tensor && elements(tensor.dims) >= LEAST_WEIGHT) inputs.push([scope, name]);
    }
  }
  if (dead.length) yield finding("dead-nodes", `The results of ${count(dead.length, "node")} reach no output.`, dead);
  if (names.length) {
    const text = `Not unique: the names of ${count(names.length, "node")}, such as '${plain(names[0].name)}'.`;
    yield finding("node-names-repeat", text, names);
  }
  const wasted = unused.reduce((sum, [, t]) => sum + (patient.expectedBytes(t) ?? 0), 0);
  if (wasted > 4096 && wasted > Math.floor(patient.weightsBytes / 50)) {
    const text = `${count(unused.length, "tensor")} of ${amount(wasted)}; the weights have ${amount(patient.weightsBytes)} in all.`;
    yield finding("unused-weights", text, unused.map(([s, t]) => place("tensor", t.name ?? "", null, s.label)));
  }
  if (inputs.length) {
    const text = `${count(inputs.length, "initializer")}: ${listed(inputs.map(([, name]) => name))}.`;
    yield finding("weights-are-inputs", text, inputs.map(([s, name]) => place("input", name, null, s.label)));
  }
}

/** Indices of the nodes whose results reach an output. */
function liveNodes(scope) {
  const found = new Set();
  const waiting = scope.outputs.filter((name) => scope.producer.has(name)).map((name) => scope.producer.get(name));
  while (waiting.length) {
    const index = waiting.pop();
    if (found.has(index)) continue;
    found.add(index);
    waiting.push(...before(scope, index));
  }
  return found;
}

export function* recursion(patient) {
  const calls = new Map([...patient.functions].map(([name, f]) => [name, called(f).filter((c) => patient.functions.has(c))]));
  for (const [name, first] of calls) {
    const reached = new Set();
    const waiting = [...first];
    while (waiting.length) {
      const other = waiting.pop();
      if (reached.has(other)) continue;
      reached.add(other);
      waiting.push(...calls.get(other));
    }
    if (reached.has(name)) {
      yield finding("recursive-function", `${plain(name)} is called within itself.`, place("function", patient.functions.get(name).name ?? ""));
      return;
    }
  }
}

/** Domain and name of all that a function's nodes are, also in the graphs inside them. */
function called(f) {
  const found = new Set();
  const waiting = [...f.node];
  while (waiting.length) {
    const node = waiting.pop();
    found.add(key(domain(node), opType(node)));
    for (const [, graph] of innerGraphs(node)) waiting.push(...graph.node);
  }
  return [...found];
}

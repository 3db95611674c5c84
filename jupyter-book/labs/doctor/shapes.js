// Whether the batch size is fixed. As course_utils/diagnosis/findings/shapes.py has it.

import { attribute, isOp } from "./patient.js";
import { finding, listed, place, plain } from "./words.js";

/** Sizes as the file has them: a number, or null where it is free; null for no shape at all, or no tensor. */
function shapeOf(value) {
  const dims = value.type?.tensor_type?.shape?.dim;
  return dims ? dims.map((d) => (d.dim_value === undefined ? null : Number(d.dim_value))) : null;
}

/** One number stands in every input that has several dimensions where the batch is, and in an output: it is fixed.
 * Only for models that learnt something: a formula of fixed size has no batch. */
export function* fixedBatch(patient) {
  const { WITH_WEIGHTS } = patient.tables.shapes;
  const learnt = [...patient.eachNode()].some(
    ([scope, , node]) => isOp(node, WITH_WEIGHTS) && node.input.some((name) => patient.stored(scope, name)),
  );
  if (!learnt) return;
  const axes = batchAxes(patient);
  const several = new Map(patient.inputValues().map((v) => [v.name ?? "", shapeOf(v)]).filter(([, dims]) => dims?.length > 1));
  const axisOf = (name) => axes.get(name) ?? 0;
  const sizes = new Set([...several].map(([name, dims]) => dims[axisOf(name) % dims.length]));
  const [number] = sizes;
  if (sizes.size !== 1 || !number) return;
  const fixed = (dims) => dims?.length && (axes.size ? dims : dims.slice(0, 1)).includes(number);
  if (!patient.graph.output.map(shapeOf).some(fixed)) return;
  const names = [...several.keys()];
  const at = names.map(axisOf);
  const inputs = listed(at.some(Boolean) ? names.map((name, i) => `${plain(name)} (axis ${at[i]})`) : names);
  const where = at.some(Boolean) ? "the size of the batch" : "the first dimension";
  const free = at.slice(0, 4).map((axis) => `{${axis}: 'batch'}`).join(", ") + (at.length === 1 ? "," : at.length > 4 ? ", …" : "");
  const advice = patient.catalogue.codes["batch-fixed"].cure.replace("{0: 'batch'},", free);
  const text = `${inputs}: ${where} is ${number}. Another number of examples is an error.`;
  yield finding("batch-fixed", text, names.map((name) => place("input", name)), advice);
}

/** Input → the axis of the batch, where a recurrent layer tells it: time stands first there, and the batch second. */
function batchAxes(patient) {
  const found = new Map();
  for (const node of patient.main.nodes) {
    if (!isOp(node, ["LSTM", "GRU", "RNN"]) || attribute(node, "layout", 0)) continue;
    for (const name of [...node.input.slice(0, 1), ...node.input.slice(5, 7)]) {
      const came = cameFrom(patient, name, 1); // the sequence, and the first states
      if (came && !found.has(came[0])) found.set(...came);
    }
  }
  return found;
}

/** [input of the model, which of its axes] that an axis of a tensor is; null where this cannot be followed. */
function cameFrom(patient, start, startAxis) {
  const scope = patient.main;
  let [name, axis] = [start, startAxis];
  for (let step = 0; step < 64; step += 1) {
    if (!scope.producer.has(name)) return scope.inputNames.has(name) ? [name, axis] : null;
    const node = scope.nodes[scope.producer.get(name)];
    if (isOp(node, ["Transpose"])) {
      const perm = attribute(node, "perm", []);
      if (!(axis >= 0 && axis < perm.length)) return null;
      [axis, name] = [perm[axis], node.input[0]];
    } else if (isOp(node, ["Gather"]) && patient.stored(scope, node.input[0]) && !attribute(node, "axis", 0)) {
      [, name] = node.input; // an embedding
    } else if (isOp(node, patient.tables.shapes.SAME_AXES)) {
      name = node.input.find((n) => !patient.stored(scope, n)) ?? "";
    } else {
      return null;
    }
  }
  return null;
}

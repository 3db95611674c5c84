// Signs of a quantization that went wrong, or that does not pay. As course_utils/diagnosis/findings/quantization.py has it.

import { attribute, domain, isOp, key, opType } from "./patient.js";
import { count, finding, placeText } from "./words.js";

const FLOATS = [1, 10, 11]; // what NumPy counts as floats
const INT8 = 3;
const first = (value) => Number(value.data[0]);
const zeros = (value) => value.data.every((x) => Number(x) === 0);

export function* scales(patient) {
  const { SCALES } = patient.tables.quantization;
  const wrong = [];
  for (const [scope, index, node] of patient.eachNode()) {
    if (!isOp(node, Object.keys(SCALES))) continue;
    for (const position of SCALES[opType(node)]) {
      const value = position < node.input.length ? patient.value(scope, node.input[position]) : null;
      if (!value || !FLOATS.includes(value.type)) continue;
      const bad = value.data.find((x) => !Number.isFinite(x) || x <= 0);
      if (bad === undefined || (opType(node) === "DequantizeLinear" && allZero(patient, scope, node, value))) continue;
      wrong.push([scope.place(index), bad]);
    }
  }
  if (wrong.length) {
    const text = `Scale ${wrong[0][1]} at ${placeText(wrong[0][0])}.`;
    yield finding("scale-impossible", text, wrong.map(([at]) => at));
  }
}

/** Whether a scale is zero, if not positive, where all that it scales is zero, too: a channel that was pruned. */
function allZero(patient, scope, node, scale) {
  const tensor = patient.stored(scope, node.input[0]);
  const stored = tensor && patient.array(tensor, 64 * 2 ** 20);
  if (!stored || scale.dims.length > 1 || scale.data.some((x) => !Number.isFinite(x) || x < 0)) return false;
  if (scale.data.length === 1) return zeros(stored);
  const { dims } = stored;
  const given = attribute(node, "axis", 1);
  const axis = given < 0 ? given + dims.length : given;
  if (axis < 0 || axis >= dims.length || dims[axis] !== scale.data.length) return false;
  const behind = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  return stored.data.every((x, i) => Number(x) === 0 || scale.data[Math.floor(i / behind) % dims[axis]] !== 0);
}

/** Activations with the scale 1 and the zero point 0: ONNX Runtime's calibration gives these where it saw only zeros.
 * In uint8 a picture of 0 … 255 has them, too; so there only tensors count that a computation gives. */
export function* uncalibrated(patient) {
  const found = [];
  for (const [scope, index, node] of patient.eachNode()) {
    if (!isOp(node, ["QuantizeLinear"]) || node.input.length < 2) continue;
    const given = node.input[2] ?? "";
    const scale = patient.value(scope, node.input[1]);
    const zero = given ? patient.value(scope, given) : { data: [0], type: 2 };
    if (!scale || !zero || scale.data.length !== 1 || first(scale) !== 1 || !zeros(zero)) continue;
    if (zero.type === INT8 || computed(patient, scope, node.input[0])) found.push(scope.place(index));
  }
  if (found.length) {
    const text = `Scale 1 and zero point 0, in ${count(found.length, "node")}: values below 0.5 all become 0.`;
    yield finding("scale-not-calibrated", text, found);
  }
}

/** Whether a tensor is more than an input in another dtype, or by another name. */
function computed(patient, scope, start) {
  let name = start;
  for (let step = 0; step < patient.tables.quantization.FAR; step += 1) {
    const node = scope.nodes[scope.producer.get(name)];
    if (!node || !isOp(node, ["Cast", "Identity"]) || !node.input.length) return Boolean(node);
    [name] = node.input;
  }
  return false;
}

/** Numbers between 0 and 1, quantized in steps that leave five of them or fewer: boxes in pixels need such a scale. */
export function* scores(patient) {
  const { QUANTIZES, COARSE, PROBABILITY, FAR } = patient.tables.quantization;
  const found = [];
  for (const [scope, index, node] of patient.eachNode()) {
    const kind = QUANTIZES[key(domain(node), opType(node))];
    if (!kind || node.input.length <= Math.max(...kind)) continue;
    const [read, scaledBy] = kind;
    const scale = patient.value(scope, node.input[scaledBy]);
    const zero = node.input.length > scaledBy + 1 ? patient.value(scope, node.input[scaledBy + 1]) : null;
    if (!scale || scale.data.length !== 1 || !(first(scale) > COARSE)) continue;
    if (first(scale) === 1 && (!zero || zeros(zero)) && isOp(node, ["QuantizeLinear"])) continue; // `uncalibrated` says so
    const joined = opType(node) === "QLinearConcat";
    const names = node.input.filter((_, i) => (joined ? i >= read && (i - read) % 3 === 0 : i === read));
    const own = PROBABILITY.includes(opType(node));
    if (own || names.some((name) => probability(patient, scope, name, FAR))) found.push([scope.place(index), first(scale)]);
  }
  if (!found.length) return;
  const [where, step] = found[0];
  const kept = Math.floor(1 / step + 0.5) + 1;
  const text =
    `${placeText(where)} rounds to multiples of ${Number(step.toPrecision(3))}, and part of what it reads is the result of a ` +
    `Sigmoid or Softmax, between 0 and 1: ${count(kept, "number")} can be told apart afterwards.`;
  yield finding("scores-lost", text, found.map(([at]) => at));
}

/** Whether a tensor is, wholly or in part, the result of a Sigmoid or Softmax. */
function probability(patient, scope, name, left) {
  const node = scope.nodes[scope.producer.get(name)];
  if (!node || !left) return false;
  const { PROBABILITY, KEEPS } = patient.tables.quantization;
  const further = (n) => probability(patient, scope, n, left - 1);
  if (PROBABILITY.includes(opType(node))) return true;
  if (isOp(node, ["Mul"])) return node.input.every(further); // the confidence in an object times that in its class
  if (isOp(node, ["Concat"]) || opType(node) === "QLinearConcat") return node.input.some(further);
  return isOp(node, KEEPS) && further(node.input[0]);
}

export function* dynamicConv(patient) {
  const found = [];
  for (const [scope, index, node] of patient.eachNode()) {
    const before = isOp(node, ["ConvInteger"]) && scope.nodes[scope.producer.get(node.input[0])];
    if (before && isOp(before, ["DynamicQuantizeLinear"])) found.push(scope.place(index));
  }
  if (found.length) {
    const text = `Input is quantized anew in each run, for ${count(found.length, "ConvInteger node")}, and these have no fast kernel.`;
    yield finding("dynamic-quantized-conv", text, found);
  }
}

export function* incomplete(patient) {
  const found = [];
  let whole = 0;
  for (const [scope, index, node] of patient.eachNode()) {
    if (!isOp(node, ["Conv"]) || node.input.length < 2 || !node.output.length) continue;
    const before = node.input.slice(0, 2).map((name) => scope.nodes[scope.producer.get(name)]);
    if (before.some((b) => !b || !isOp(b, ["DequantizeLinear"]))) continue;
    if (meetsQuantize(patient, scope, node.output[0])) whole += 1;
    else found.push(scope.place(index));
  }
  if (found.length) {
    const all = count(found.length + whole, "convolution");
    yield finding("qdq-incomplete", `${found.length} of ${all} with quantized input and weights, and no QuantizeLinear behind.`, found);
  }
}

function meetsQuantize(patient, scope, start) {
  let name = start;
  for (let step = 0; step < 4; step += 1) {
    const readers = (scope.readers.get(name) ?? []).map((i) => scope.nodes[i]);
    if (readers.some((r) => isOp(r, ["QuantizeLinear"]))) return true;
    if (readers.length !== 1 || !isOp(readers[0], patient.tables.quantization.PASSES) || !readers[0].output.length) return false;
    [name] = readers[0].output;
  }
  return false;
}

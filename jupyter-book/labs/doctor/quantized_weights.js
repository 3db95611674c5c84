// Quantized weights that lost too much: few of their levels are used, or many are cut off.
// As course_utils/diagnosis/findings/quantized_weights.py has it.

import { attribute, domain, elements, isOp, key, opType } from "./patient.js";
import { count, finding, place, plain } from "./words.js";

const INT8 = 3;
const median = (values) => {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** int8 weights: how much of the range do they use, and how many stand at its very end? */
export function* levels(patient) {
  const T = patient.tables.quantized_weights;
  const [few, cut, seen] = [[], [], new Set()];
  for (const [scope, node, position, axis, perTensor, zeroName] of quantizedWeights(patient)) {
    const tensor = patient.stored(scope, node.input[position]);
    if (!tensor || !T.INT8.includes(tensor.data_type) || tensor.dims.length < 2 || seen.has(tensor)) continue;
    seen.add(tensor);
    const value = patient.array(tensor, 64 * 2 ** 20);
    if (!value || value.data.length < 256) continue;
    const points = patient.value(scope, zeroName);
    const zero = points?.data.length ? median(Array.from(points.data, Number)) : 0;
    const widest = widestOf(value, axis, zero);
    if (!widest) continue;
    const used = widest.filter((w) => w > 0); // channels of zeros may have been pruned, but hardly all but one or two
    const where = place("tensor", tensor.name ?? "", null, scope.label);
    const wide = widest.filter((w) => w > T.FEW).length;
    const lost = widest.length > 3 && wide <= Math.max(1, Math.floor(widest.length / 8));
    if (perTensor && (lost || (used.length > 3 && median(used) <= T.FEW))) few.push([where, median(lost ? widest : used)]);
    const [low, high] = tensor.data_type === INT8 ? [-127, 127] : [0, 255];
    const ends = value.data.reduce((sum, x) => sum + (x >= high || x <= low), 0);
    // The largest weight of each scale stands at the end, as it should, and its equals on the other side.
    const surplus = ends - 2 * (perTensor ? 1 : widest.length);
    const binary = new Set(value.data).size <= 4; // weights that were trained with two or three values
    if (surplus > Math.floor(value.data.length / 20) && !binary) cut.push([where, surplus / value.data.length]);
  }
  if (few.length) {
    const text =
      `${count(few.length, "tensor")} with one scale for all channels, and one channel that is much wider than the others. ` +
      `In '${plain(few[0][0].name)}' half of the channels reach no further than ±${few[0][1].toFixed(0)} of ±127.`;
    yield finding("weights-collapsed", text, few.map(([at]) => at));
  }
  if (cut.length) {
    const share = `${Math.round(100 * cut[0][1])}%`;
    const text = `${count(cut.length, "tensor")}; in '${plain(cut[0][0].name)}' ${share} of the values stand at the end of the range.`;
    yield finding("weights-saturated", text, cut.map(([at]) => at));
  }
}

/** How far the values of each channel are from the zero point; null for an axis that the tensor does not have. */
function widestOf({ data, dims }, axis, zero) {
  const at = ((axis % dims.length) + dims.length) % dims.length; // as Python counts from the end
  const behind = dims.slice(at + 1).reduce((a, b) => a * b, 1);
  const widest = new Float64Array(dims[at]);
  for (let i = 0; i < data.length; i += 1) {
    const channel = Math.floor(i / behind) % dims[at];
    widest[channel] = Math.max(widest[channel], Math.abs(data[i] - zero));
  }
  return widest;
}

/** [scope, node, position of the weight, axis of its channels, whether one scale stands for all, name of the zero point]. */
function* quantizedWeights(patient) {
  const { INTEGER } = patient.tables.quantized_weights;
  for (const [scope, , node] of patient.eachNode()) {
    const given = (i) => node.input[i] ?? "";
    const isOne = (name) => elements(patient.stored(scope, name)?.dims ?? [2]) === 1;
    const known = INTEGER[key(domain(node), opType(node))];
    if (isOp(node, ["DequantizeLinear"])) {
      const single = isOne(given(1));
      const axis = single ? channels(patient, scope, node.output[0] ?? "") : attribute(node, "axis", 1);
      yield [scope, node, 0, axis, single, given(2)];
    } else if (known) {
      const [weight, judgedBy, zero, axis] = known;
      yield [scope, node, weight, attribute(node, "transB", 0) ? 0 : axis, isOne(given(judgedBy)), given(zero)];
    }
  }
}

/** The axis of the channels of a weight, by the node that reads it. */
function channels(patient, scope, start) {
  let [turned, reader, name] = [false, null, start];
  for (let step = 0; step < patient.tables.quantized_weights.FAR; step += 1) {
    reader = scope.nodes[scope.readers.get(name)?.[0]] ?? null;
    if (!reader || !isOp(reader, ["Transpose"]) || !reader.output.length) break;
    [turned, name] = [!turned, reader.output[0]]; // between a weight as PyTorch has it and a MatMul
  }
  if (reader && isOp(reader, ["ConvTranspose"])) return 1;
  const leading = reader && (isOp(reader, ["Conv"]) || (isOp(reader, ["Gemm"]) && attribute(reader, "transB", 0)));
  return Boolean(leading) !== turned ? 0 : -1;
}

// Weights on a few levels, in the arithmetic of float32: what NumPy gives, bit for bit.

const f = Math.fround;

/** To the nearest whole number; a half goes to the even one, as in ONNX's QuantizeLinear. */
export function rint(x) {
  const up = Math.round(x);
  return Math.abs(x % 1) === 0.5 && up % 2 ? up - 1 : up;
}

/**
 * Quantize the weights of a convolution. values: Float32Array, channel after channel. rule: `bits`; `perChannel`, one scale for each
 * channel, or one for all; `low` and `high`, which part of the range of the weights the levels cover (1: all of it).
 *
 * Returns `levels` (Uint8Array), `scales` and `zeros`, one for each group, and of the error: `clipped` weights, `square` (mean of the
 * squared error), `largest`, `used` (levels of the first group that stand for a weight).
 */
export function quantized(values, channels, { bits, perChannel, low, high }) {
  const groups = perChannel ? channels : 1;
  const size = values.length / groups;
  const most = 2 ** bits - 1;
  const levels = new Uint8Array(values.length);
  const scales = new Float32Array(groups);
  const zeros = new Uint8Array(groups);
  const error = { clipped: 0, square: 0, largest: 0 };
  for (let group = 0; group < groups; group++) {
    const from = group * size;
    const [least, greatest] = range(values.subarray(from, from + size));
    const bottom = f(least * f(low));
    const scale = f(f(f(greatest * f(high)) - bottom) / most) || 1;
    const zero = Math.max(0, Math.min(most, rint(f(-bottom / scale))));
    scales[group] = scale;
    zeros[group] = zero;
    for (let i = from; i < from + size; i++) {
      const wished = rint(f(values[i] / scale)) + zero;
      const level = Math.max(0, Math.min(most, wished));
      levels[i] = level;
      const off = Math.abs(f((level - zero) * scale) - values[i]);
      error.clipped += level !== wished;
      error.square += (off * off) / values.length;
      error.largest = Math.max(error.largest, off);
    }
  }
  return { levels, scales, zeros, ...error, used: new Set(levels.subarray(0, size)).size };
}

/** The smallest and the largest of some weights, zero included: zero must have a level of its own. */
export function range(values) {
  let [least, greatest] = [0, 0];
  for (const value of values) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return [least, greatest];
}

/** How many weights lie in each of `count` bins between two numbers. */
export function histogram(values, from, to, count) {
  const bins = new Array(count).fill(0);
  for (const value of values) bins[Math.max(0, Math.min(count - 1, Math.floor(((value - from) / (to - from)) * count)))]++;
  return bins;
}

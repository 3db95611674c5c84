// What the lab computes by itself: pictures of another size, and what an answer is beside PyTorch's.

import { apart } from "../kit/numbers.js";

export const SIDE = 28; // of the pictures as they are stored
const CLOSE = 1e-4; // the answers are sums of numbers from 0 to 1, ten at most

/** float32 [batch, height, width] from 0 to 1, each pixel the nearest one; models/batch_and_size.py does the same. */
export function resized(pictures, height, width) {
  const made = new Float32Array(pictures.length * height * width);
  let at = 0;
  for (const picture of pictures) {
    for (let y = 0; y < height; y++) {
      const row = Math.floor((y * SIDE) / height) * SIDE;
      for (let x = 0; x < width; x++) made[at++] = picture[row + Math.floor((x * SIDE) / width)] / 255;
    }
  }
  return made;
}

/** The first `rows` rows of each picture. */
export function topRows(pixels, batch, height, width, rows) {
  const made = new Float32Array(batch * rows * width);
  for (let n = 0; n < batch; n++) made.set(pixels.subarray(n * height * width, (n * height + rows) * width), n * rows * width);
  return made;
}

/** `{verdict: "right" | "wrong", difference}` of an answer beside PyTorch's rows. */
export function judge(answer, rows) {
  const difference = apart(answer, rows.flat());
  return { verdict: difference <= CLOSE ? "right" : "wrong", difference };
}

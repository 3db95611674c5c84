import assert from "node:assert/strict";
import test from "node:test";
import { line, packed, SIDE, unpacked } from "./pen.js";

test("a drawing survives the address", () => {
  const pixels = Uint8Array.from({ length: SIDE * SIDE }, (_, i) => (i * 7919) % 3 ? 0 : 255);
  assert.match(packed(pixels), /^[\w-]+$/);
  assert.deepEqual(unpacked(packed(pixels)), pixels);
});

test("what is no drawing is none", () => {
  for (const text of ["", "abc", "%%%", packed(new Uint8Array(8))]) assert.equal(unpacked(text), undefined);
});

test("a quick stroke has no gaps", () => {
  const dots = line([2, 3], [9, 5]);
  assert.deepEqual([dots[0], dots.at(-1)], [[2, 3], [9, 5]]);
  for (let i = 1; i < dots.length; i++) assert.ok(Math.abs(dots[i][0] - dots[i - 1][0]) <= 1 && Math.abs(dots[i][1] - dots[i - 1][1]) <= 1);
  assert.deepEqual(line([4, 4], [4, 4]), [[4, 4]]);
});

import assert from "node:assert/strict";
import test from "node:test";

import { histogram, quantized, range, rint } from "./levels.js";

test("a half goes to the even number", () => {
  assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 2.4, -2.6].map((x) => rint(x) + 0), [0, 2, 2, 0, -2, -2, 2, -3]);
});

test("on its own range, no weight is clipped, and the error is half a step at most", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i) * (i < 32 ? 1 : 0.1));
  for (const perChannel of [false, true]) {
    const found = quantized(values, 2, { bits: 4, perChannel, low: 1, high: 1 });
    assert.equal(found.scales.length, perChannel ? 2 : 1);
    assert.equal(found.clipped, 0);
    assert.ok(found.largest <= Math.max(...found.scales) * 0.51);
  }
});

test("a narrow range clips", () => {
  const found = quantized(Float32Array.of(-1, -0.5, 0.5, 1), 1, { bits: 8, perChannel: false, low: 0.5, high: 0.5 });
  assert.equal(found.clipped, 2);
  assert.ok(Math.abs(found.largest - 0.5) < 0.01);
});

test("weights that are all zero keep a scale", () => {
  const found = quantized(new Float32Array(4), 2, { bits: 2, perChannel: true, low: 1, high: 1 });
  assert.deepEqual([...found.scales], [1, 1]);
  assert.equal(found.square, 0);
});

test("a range has zero in it, and each weight has a bin", () => {
  assert.deepEqual(range(Float32Array.of(2, 3)), [0, 3]);
  assert.deepEqual(histogram([0, 0.4, 1, 9], 0, 1, 2), [2, 2]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { apart, small } from "./numbers.js";

test("the largest difference", () => {
  assert.equal(apart([1, 5, 2], Float32Array.of(1, 2, 2)), 3);
  assert.equal(apart([], []), 0);
  assert.equal(apart([1], [1, 2]), Infinity);
  assert.equal(apart([NaN, 1], [NaN, 1]), Infinity);
  assert.equal(apart([1, 2], [NaN, 5]), Infinity);
});

test("small differences as text", () => {
  assert.equal(small(0), "0");
  assert.equal(small(1.44e-6), "1.4e\u20116");
});

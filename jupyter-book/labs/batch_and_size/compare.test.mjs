import assert from "node:assert/strict";
import { test } from "node:test";

import { words } from "../kit/ui.js";
import { judge, resized, SIDE, topRows } from "./compare.js";

const ramp = Array.from({ length: SIDE * SIDE }, (_, i) => Math.floor(i / SIDE)); // each pixel holds the number of its row

test("a picture of its own size stays as it is", () => {
  assert.deepEqual(resized([ramp, ramp], SIDE, SIDE), Float32Array.from([...ramp, ...ramp], (v) => v / 255));
});

test("another height takes the nearest rows", () => {
  const rows = (height) => Array.from(resized([ramp], height, 1), (v) => Math.round(v * 255));
  assert.deepEqual(rows(4), [0, 7, 14, 21]);
  assert.deepEqual(rows(29).slice(0, 3), [0, 0, 1]);
  assert.equal(rows(29).at(-1), 27);
});

test("the top rows of each picture", () => {
  assert.deepEqual([...topRows(Float32Array.of(1, 2, 3, 4, 5, 6), 2, 3, 1, 2)], [1, 2, 4, 5]);
});

test("right, wrong, and what is no answer", () => {
  assert.deepEqual(judge([1, 2], [[1], [2]]), { verdict: "right", difference: 0 });
  assert.equal(judge([1, 2.001], [[1], [2]]).verdict, "wrong");
  assert.equal(judge([1], [[1], [2]]).difference, Infinity);
  assert.equal(judge([NaN, 2], [[1], [2]]).verdict, "wrong");
});

test("the runtime's own words", () => {
  const error = new Error("failed to call OrtRun(). ERROR_CODE: 2, ERROR_MESSAGE: Got invalid dimensions\n index: 0 Got: 4 Expected: 1");
  assert.equal(words(error), "Got invalid dimensions\n index: 0 Got: 4 Expected: 1");
  assert.equal(words(new Error("other")), "other");
});

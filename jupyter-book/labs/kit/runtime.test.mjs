import assert from "node:assert/strict";
import test from "node:test";

import { median, open, stopwatch, tensor } from "./runtime.js";

test("the median of an odd and of an even number of times", () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 3, 2]), 2.5);
});

test("a tensor is a plain object, so that it can be made before the runtime is there", () => {
  assert.deepEqual(tensor("uint8", Uint8Array.of(1, 2), [2]), { type: "uint8", data: Uint8Array.of(1, 2), dims: [2] });
});

test("an unknown provider is one sentence", async () => {
  await assert.rejects(open("model.onnx", { provider: "webnn" }), /"webnn" is unknown: give "wasm" or "webgpu"\.$/);
});

test("a stopwatch calls a short function many times in a round, and counts the rounds", async () => {
  let calls = 0;
  const { median: one, rounds, repeats } = await stopwatch(async () => calls++, { rounds: 4, warmUp: 2, least: 1 });
  assert.equal(rounds, 4);
  assert.ok(repeats > 1);
  assert.equal(calls, 2 + 4 * repeats);
  assert.ok(one >= 0);
});

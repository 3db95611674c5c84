import assert from "node:assert/strict";
import test from "node:test";

import { rank, wordsOf } from "./match.js";

const TEXTS = ["Got invalid dimensions for input: x for the following indices", "The opset is newer than this runtime takes", "Unsupported model IR version: 14"];

test("names, numbers and paths are no words", () => {
  assert.deepEqual(wordsOf("Load model from /tmp/a b/9.onnx failed: 'weight1' in \"net\" 42"), ["load", "model", "from", "onnx", "failed"]);
});

test("the same message about another model comes first", () => {
  const [best, ...others] = rank(TEXTS, "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: image for the following indices\n index: 2 Got: 14 Expected: 28");
  assert.equal(best.index, 0);
  assert.deepEqual(others, []);
  assert.ok(best.score > 0.9);
});

test("what no message has finds nothing", () => {
  assert.deepEqual(rank(TEXTS, "segmentation fault"), []);
  assert.deepEqual(rank(TEXTS, ""), []);
});

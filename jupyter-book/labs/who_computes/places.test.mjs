import assert from "node:assert/strict";
import { test } from "node:test";

import { copied, shares } from "./places.js";

const node = (name, input, output) => ({ name, input, output });
const graph = { node: [node("A", ["x"], ["a"]), node("B", ["a"], ["b"]), node("C", ["a", "b"], ["c"])] };

test("shares are counted, most first", () => {
  assert.deepEqual(shares({ A: "CPU", B: "GPU", C: "GPU" }), [["GPU", 2], ["CPU", 1]]);
  assert.deepEqual(shares({}), []);
});

test("a tensor that crosses is copied once", () => {
  assert.deepEqual(copied(graph, { A: "GPU", B: "CPU", C: "CPU" }), ["a"]);
  assert.deepEqual(copied(graph, { A: "GPU", B: "CPU", C: "GPU" }), ["a", "b"]);
  assert.deepEqual(copied(graph, { A: "GPU", B: "GPU", C: "GPU" }), []);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { family, moved, randomInput, tell } from "./origins.js";

// Conv, Relu, Identity, Add → FusedConv, Add
const level = {
  nodes: [
    { what: "fused", from: [0, 1], reads: 4, writes: 4 },
    { what: "kept", from: [3], reads: 8, writes: 4 },
  ],
  gone: { 2: "removed" },
};
const ops = { left: ["Conv", "Relu", "Identity", "Add"], right: ["FusedConv", "Add"] };

test("a node and where it comes from, from both sides", () => {
  const both = { left: ["node 0", "node 1"], right: ["node 0"] };
  assert.deepEqual(family(level, "right", 0), both);
  assert.deepEqual(family(level, "left", 1), both);
  assert.deepEqual(family(level, "left", 2), { left: ["node 2"], right: [] });
});

test("what is said of it", () => {
  assert.equal(tell(level, "right", 0, ops), "Conv + Relu became one node, FusedConv (fused).");
  assert.equal(tell(level, "left", 0, ops), "Conv + Relu became one node, FusedConv (fused).");
  assert.equal(tell(level, "right", 1, ops), "Add stayed as it was (kept).");
  assert.match(tell(level, "left", 2, ops), /^Identity is gone \(removed\): it passed/);
});

test("bytes between nodes", () => assert.equal(moved(level), 20));

test("random input is the same for the same seed", () => {
  const one = randomInput(1, 128);
  assert.deepEqual(one, randomInput(1, 128));
  assert.notDeepEqual(one, randomInput(2, 128));
  const mean = one.reduce((a, b) => a + b) / 128;
  assert.ok(Math.abs(mean) < 0.3 && one.every((v) => Math.abs(v) <= 3));
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { describeGraph, layoutGraph, MOST, pointsOf } from "./graph.js";
import { readModel } from "./onnx.js";

const node = (op_type, input, output, attribute = []) => ({ op_type, input, output, attribute });
const graphOf = (input, node, output, initializer = []) => ({
  input: input.map((name) => ({ name })),
  output: output.map((name) => ({ name })),
  initializer: initializer.map((name) => ({ name })),
  node,
});
const fork = graphOf(
  ["x", "W"],
  [node("Conv", ["x", "W"], ["c"]), node("Relu", ["c"], ["r"]), node("Add", ["r", "c"], ["y"])],
  ["y"],
  ["W"],
);
const arrowsOf = (graph) => pointsOf(graph).arrows.map(({ from, to }) => `${from} → ${to}`);

test("points and arrows, without the weights", () => {
  assert.deepEqual(pointsOf(fork).points.map(({ id }) => id), ["input x", "node 0", "node 1", "node 2", "output y"]);
  assert.deepEqual(arrowsOf(fork), ["input x → node 0", "node 0 → node 1", "node 1 → node 2", "node 0 → node 2", "node 2 → output y"]);
});

test("what a branch reads from outside is an arrow, too", () => {
  const branch = graphOf([], [node("Neg", ["x"], ["n"])], ["n"]);
  const graph = graphOf(["x", "c"], [node("If", ["c"], ["y"], [{ g: branch, graphs: [] }])], ["y"]);
  assert.deepEqual(arrowsOf(graph), ["input c → node 0", "input x → node 0", "node 0 → output y"]);
});

test("arrows go down, and no two points overlap", () => {
  const model = readModel(readFileSync(new URL("../../../data/deploy/model/model.onnx", import.meta.url)));
  for (const graph of [fork, model.graph]) {
    const { points, arrows, width, height } = layoutGraph(graph, { detail: (id) => (id === "node 1" ? ["a second line", "", "a third"] : []) });
    const found = new Map(points.map((point) => [point.id, point]));
    for (const { from, to } of arrows) assert.ok(found.get(from).y + found.get(from).height / 2 < found.get(to).y);
    for (const [index, a] of points.entries()) {
      assert.ok(a.x - a.width / 2 >= 0 && a.x + a.width / 2 <= width && a.y + a.height / 2 <= height);
      for (const b of points.slice(index + 1)) {
        assert.ok(Math.abs(a.x - b.x) * 2 >= a.width + b.width || Math.abs(a.y - b.y) * 2 >= a.height + b.height);
      }
    }
  }
});

test("odd graphs are drawn, too large ones are told", () => {
  assert.equal(layoutGraph(graphOf([], [], [])).points.length, 0);
  const circle = graphOf([], [node("A", ["b"], ["a"]), node("B", ["a"], ["b"]), node("C", ["lost"], ["c"])], ["nowhere"]);
  assert.equal(layoutGraph(circle).arrows.length, 2);
  const twice = graphOf(["x"], [node("A", ["x"], ["a"]), node("B", ["x"], ["a"])], ["a", "a"]);
  assert.equal(layoutGraph(twice).points.length, 5);
  const long = graphOf(["x"], Array.from({ length: MOST }, (_, i) => node("Relu", [`${i}`], [`${i + 1}`])), []);
  assert.throws(() => layoutGraph(long), /301 points is not drawn here; 300 is the most/);
});

test("the same in words", () => {
  assert.deepEqual(describeGraph(fork), [
    "1. Conv reads x and writes c.",
    "2. Relu reads c and writes r.",
    "3. Add reads r and c and writes y.",
  ]);
});

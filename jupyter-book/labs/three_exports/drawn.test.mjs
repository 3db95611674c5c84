import assert from "node:assert/strict";
import { test } from "node:test";

import { ATTRIBUTE_TYPES, DATA_TYPES } from "../kit/onnx.js";
import { drawable, judge, matrix, short, sizes } from "./drawn.js";

const node = (op_type, input, output, attribute = []) => ({ op_type, input, output, attribute });
const float = (dims, ...values) => ({ dims, data_type: DATA_TYPES.FLOAT, float_data: values });
const constant = (name, tensor) => node("Constant", [], [name], [{ name: "value", type: ATTRIBUTE_TYPES.TENSOR, t: tensor }]);
const graphOf = (...nodes) => ({ input: [{ name: "x" }], output: [{ name: "y" }], initializer: [], node: nodes });

test("constants are told in the node that reads them", () => {
  const { graph, details } = drawable(graphOf(constant("two", float([], 2)), node("Mul", ["x", "two"], ["y"])));
  assert.deepEqual(graph.node.map(({ op_type }) => op_type), ["Mul"]);
  assert.deepEqual(graph.initializer.map(({ name }) => name), ["two"]);
  assert.deepEqual(details, [["2"]]);
});

test("weights of the file and lists are constants, too", () => {
  const graph = { ...graphOf(node("Add", ["x", "w"], ["y"])), initializer: [{ name: "w", ...float([2], 0.5, -1) }] };
  assert.deepEqual(drawable(graph).details, [["[0.5, -1]"]]);
});

test("the graphs inside a node are told", () => {
  const side = graphOf(constant("one", float([], 1)), node("Sub", ["x", "one"], ["y"]), node("Identity", ["y"], ["z"]));
  const { details } = drawable(graphOf(node("If", ["x"], ["y"], [{ name: "else_branch", g: side }])));
  assert.deepEqual(details, [["else: Sub 1"]]);
});

test("right, wrong, and another shape", () => {
  assert.deepEqual(judge({ dims: [2], data: [1, 2] }, [1, 2]), { verdict: "right", difference: 0 });
  assert.equal(judge({ dims: [1, 2], data: [1, 2.5] }, [[1, 2]]).difference, 0.5);
  assert.equal(judge({ dims: [2, 1], data: [1, 2] }, [[1, 2]]).verdict, "wrong");
  assert.equal(judge({ dims: [1], data: [NaN] }, [1]).verdict, "wrong");
});

test("texts", () => {
  assert.deepEqual(sizes([[1, 2], [3, 4], [5, 6]]), [3, 2]);
  assert.equal(short(-0.142857), "\u22120.1429");
  assert.equal(matrix([[1, -2], [3, 4]]), "[[1, -2], [3, 4]]");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { readModel, writeModel } from "../kit/onnx.js";
import { parseModel } from "./text.js";
import { listed, made, parseValues, rowSums } from "./values.js";

const model = (body, head = "", types = "(float[N, 3] x) => (float[N, 3] y)") => `<ir_version: 10, opset_import: ["": 18]> g ${types} ${head} { ${body} }`;
const fault = (text) => {
  try {
    parseModel(text);
  } catch (error) {
    return error.message;
  }
  return "";
};

test("a text becomes a model that can be written", () => {
  const { graph } = readModel(writeModel(parseModel(model("[act] y = Relu (x) # a comment\n", "<float[2] b = {1, -2.5e-1}, float[N] t>"))));
  assert.deepEqual([graph.node[0].name, graph.node[0].op_type, graph.node[0].input, graph.node[0].output], ["act", "Relu", ["x"], ["y"]]);
  assert.deepEqual([graph.initializer[0].dims, [...graph.initializer[0].float_data]], [[2], [1, -0.25]]);
  assert.deepEqual(graph.input[0].type.tensor_type.shape.dim.map((dim) => dim.dim_param ?? dim.dim_value), ["N", 3]);
  assert.equal(graph.value_info[0].name, "t");
});

test("an attribute has the type that its value has, or the one that is written", () => {
  const [node] = parseModel(model('y = com.microsoft.Op <a = 1, b = 1.5, c = "s", d = [1, 2], e: float = 1, f: ints = [], g = int64[1] {3}> (x, , "w")')).graph.node;
  assert.deepEqual(node.attribute.map(({ type }) => type), [2, 1, 3, 7, 1, 7, 4]);
  assert.deepEqual([node.domain, node.input], ["com.microsoft", ["x", "", "w"]]);
  assert.match(fault(model("y = Op <a = [1, 2.5]> (x)")), /^Line 1, column \d+: The values of a list have one type\.$/);
  assert.match(fault(model("y = Op <a: int = 1.5> (x)")), /'a' is said to be int, and its value is float/);
});

test("a fault is told with its place", () => {
  assert.equal(fault("<ir_version: 10>\ng (float[2 x) => (float[2] y) {}"), "Line 2, column 12: ] is expected in place of x.");
  assert.match(fault(model("y = Relu x")), /\( is expected in place of x\./);
  assert.match(fault(model("y = Relu (x);")), /";" is no part of ONNX's text form\./);
  assert.match(fault(model("y = Relu (x")), /\) is expected in place of }\./);
  assert.match(fault("g (float[2] x) => (float[2] y) { y = Relu"), /\( is expected, and the text ends\./);
  assert.match(fault(model("y = Relu (x)", "<float[2] b = {1}>")), /'b' is \[2\], which takes 2 values; here are 1\./);
  assert.match(fault(model("y = Op <a = 99999999999999999999> (x)")), /does not fit into 64 bits/);
  assert.match(fault(model("y = If <then_branch = g () => () {}> (x)")), /A graph as a value is not read in this page/);
  assert.match(fault(model("y = Op (x)", "", "(seq(float) x) => (float y)")), /seq\(…\) is not read in this page, only tensors/);
  assert.match(fault("x".repeat(30000)), /20000 is the most here/);
  assert.match(fault(""), /the graph's name is expected, and the text ends/);
});

test("values are written as lists", () => {
  const [input] = parseModel(model("y = Relu (x)")).graph.input;
  assert.equal(made(input), "[[1, 2, 3], [2, 3, 4]]");
  assert.deepEqual(parseValues(input, "[[1, 2.5, 3]]"), { type: "float32", data: Float32Array.of(1, 2.5, 3), dims: [1, 3] });
  assert.throws(() => parseValues(input, "1 2 3"), /'x' are written as lists, such as \[\[1/);
  assert.throws(() => parseValues(input, "[[1], [2, 3]]"), /not equally long/);
  assert.throws(() => parseValues(input, '["a"]'), /takes float32, and "a" is not a number\./);
  assert.equal(listed({ data: Float32Array.of(1, 0.123456789), dims: [2, 1], type: "float32" }), "[[1], [0.12346]]");
  assert.equal(listed({ data: BigInt64Array.of(5n), dims: [], type: "int64" }), "5");
  assert.equal(rowSums({ data: Float32Array.of(1, 0.5, 2, -2), dims: [2, 2], type: "float32" }), "1.5, 0");
  assert.equal(rowSums({ data: Int32Array.of(1, 2), dims: [1, 2], type: "int32" }), "");
  assert.match(listed({ data: new Float32Array(100), dims: [100], type: "float32" }), /… \(100 values\)$/);
});

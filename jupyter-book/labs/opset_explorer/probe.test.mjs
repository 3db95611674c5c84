import assert from "node:assert/strict";
import { test } from "node:test";

import { readModel, writeModel } from "../kit/onnx.js";
import { probe, reason, told, typesOf } from "./probe.js";

const clip = { opset: 11, inputs: [["input", 0, "T"], ["min", 1, "T"]], outputs: [["output", 0, "T"]], types: { T: ["float16", "float"] }, needs: [] };

test("a node has the inputs that may not be missing, of the type that is asked about", () => {
  assert.deepEqual(typesOf(clip), ["float16", "float"]);
  const { graph, opset_import: opsets } = readModel(writeModel(probe("Clip", clip, "float16")));
  assert.deepEqual([graph.node[0].op_type, graph.node[0].input, opsets[0].version], ["Clip", ["in_input"], 11]);
  assert.equal(graph.input[0].type.tensor_type.elem_type, 10);
});

test("another input takes float where it may, and an attribute its usual value", () => {
  const gather = { opset: 13, inputs: [["data", 0, "T"], ["at", 0, "I"]], outputs: [["y", 0, "T"]], types: { T: ["string"], I: ["int32", "int64"] }, needs: [["axis", "INT", 1], ["way", "STRING", "up"]] };
  const { graph } = readModel(writeModel(probe("Gather", gather, "string")));
  assert.deepEqual(graph.input.map(({ type }) => type.tensor_type.elem_type), [8, 7]);
  assert.deepEqual([graph.node[0].attribute[0].i, new TextDecoder().decode(graph.node[0].attribute[1].s)], [1, "up"]);
});

test("a node with a graph inside, or of sequences, is not made", () => {
  assert.equal(probe("If", { ...clip, needs: undefined }, "float"), null);
  assert.equal(probe("SequenceAt", { ...clip, types: { T: [] } }, "float"), null);
});

test("types are told by their kernels, and ONNX Runtime's words stand apart", () => {
  const some = new Map([["int8", "no kernel"], ["float", ""], ["complex64", "“Type Error”"], ["complex128", "“Type Error”"], ["int2", "no way to ask"]]);
  assert.deepEqual(told(some), { line: "a kernel for float; no kernel for int8; no answer for complex64, complex128, int2", words: ["“Type Error”"] });
  assert.equal(told(new Map([["float", ""]])).line, "a kernel for every type of this definition");
  assert.equal(told(new Map([["float", "no kernel"]])).line, "no kernel for any type of this definition");
});

test("a missing kernel is told shortly, another reason in ONNX Runtime's words", () => {
  assert.equal(reason("Could not find an implementation for Add(14) node"), "no kernel");
  assert.equal(reason("No Op registered for Foo"), "“No Op registered for Foo”");
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { attributeValue, DATA_TYPES, dtypeName, readModel, shapeOf, tensorData, writeModel } from "./onnx.js";

const file = new URL("../../../data/deploy/model/model.onnx", import.meta.url);
const tensor = (kind, dims, fields) => readTensor({ data_type: DATA_TYPES[kind], dims, name: "w", ...fields });
const readTensor = (one) => readModel(writeModel({ graph: { initializer: [one] } })).graph.initializer[0];
const values = (...args) => [...tensorData(tensor(...args))];
const raw = (...bytes) => ({ raw_data: Uint8Array.from(bytes) });

test("a file of the course is read, and written as it was", () => {
  const bytes = readFileSync(file);
  const model = readModel(bytes);
  assert.deepEqual(shapeOf(model.graph.input[0]), ["batch", 28, 28]);
  assert.equal(model.graph.node[0].op_type, "Unsqueeze");
  assert.deepEqual(model.graph.initializer[0].dims, [16, 1, 3, 3]);
  assert.ok(Buffer.from(writeModel(model)).equals(bytes));
});

test("a change is written", () => {
  const model = readModel(readFileSync(file));
  model.graph.node[0].name = "first";
  assert.equal(readModel(writeModel(model)).graph.node[0].name, "first");
});

test("whole numbers that a JavaScript number cannot hold stay exact", () => {
  const attribute = (i) => ({ node: [{ op_type: "X", attribute: [{ name: "a", type: 2, i }] }] });
  const back = (i) => attributeValue(readModel(writeModel({ graph: attribute(i) })).graph.node[0].attribute[0]);
  assert.equal(back(2n ** 63n - 1n), 2n ** 63n - 1n);
  assert.equal(back(-(2n ** 63n)), -(2n ** 63n));
  assert.equal(back(-5), -5);
  assert.equal(tensorData(tensor("UINT64", [1], { uint64_data: [2n ** 64n - 1n] }))[0], 2n ** 64n - 1n);
});

test("attributes of each kind", () => {
  const attribute = (fields) =>
    readModel(writeModel({ graph: { node: [{ op_type: "X", attribute: [{ name: "a", ...fields }] }] } })).graph.node[0].attribute[0];
  assert.equal(attributeValue(attribute({ type: 3, s: new TextEncoder().encode("Relu") })), "Relu");
  assert.deepEqual(attributeValue(attribute({ type: 8, strings: [new TextEncoder().encode("é")] })), ["é"]);
  assert.deepEqual(attributeValue(attribute({ type: 7, ints: [1, -1] })), [1, -1]);
  assert.deepEqual(attributeValue(attribute({ type: 6, floats: [0.5] })), [0.5]);
  assert.equal(attributeValue(attribute({ type: 2 })), 0); // a writer may leave out a zero
  assert.equal(attributeValue(attribute({ type: 5, g: { name: "branch" } })).name, "branch");
});

test("elements in raw bytes and in typed fields", () => {
  assert.deepEqual(values("FLOAT", [2], { float_data: [1.5, -2] }), [1.5, -2]);
  assert.deepEqual(values("FLOAT", [1], raw(0, 0, 192, 63)), [1.5]);
  assert.deepEqual(values("INT64", [2], { int64_data: [-1, 7] }), [-1n, 7n]);
  assert.deepEqual(values("INT8", [2], raw(255, 1)), [-1, 1]);
  assert.deepEqual(values("BOOL", [2], { int32_data: [1, 0] }), [1, 0]);
  assert.deepEqual(values("STRING", [1], { string_data: [new TextEncoder().encode("cat")] }), ["cat"]);
  assert.deepEqual(values("FLOAT", [0], {}), []);
  assert.deepEqual(values("COMPLEX64", [1], { float_data: [1, 2] }), [1, 2]);
});

test("types that JavaScript lacks", () => {
  assert.deepEqual(values("FLOAT16", [4], raw(0, 60, 0, 192, 1, 0, 0, 124)), [1, -2, 2 ** -24, Infinity]);
  assert.deepEqual(values("BFLOAT16", [2], { int32_data: [0x3f80, 0x7fc0] }), [1, NaN]);
  assert.deepEqual(values("INT4", [3], raw(0xf1, 0x08)), [1, -1, -8]);
  assert.deepEqual(values("UINT4", [3], raw(0xf1, 0x08)), [1, 15, 8]);
  assert.deepEqual(values("INT2", [4], raw(0b11_10_01_00)), [0, 1, -2, -1]);
  assert.deepEqual(values("FLOAT8E4M3FN", [3], raw(0x38, 0x7e, 0x7f)), [1, 448, NaN]);
  assert.deepEqual(values("FLOAT4E2M1", [3], raw(0x72, 0x09)), [1, 6, -0.5]);
});

test("what is no model or no tensor is told in one sentence", () => {
  assert.throws(() => readModel(new TextEncoder().encode("<html>not found</html>")), /These 22 bytes are no ONNX model/);
  assert.throws(() => values("FLOAT", [2, 2], { float_data: [1] }), /'w' has the shape \[2,2\], which takes 4 values; the file holds 1\./);
  assert.throws(() => values("FLOAT", [1], raw(1, 2, 3, 4, 5)), /takes 1 values; the file holds 1\.25/);
  assert.throws(() => values("INT4", [2], raw(1, 2)), /takes 2 values; the file holds 4/);
  assert.throws(() => values("FLOAT8E8M0", [1], raw(1)), /elements of float8e8m0, which are not read here/);
  const elsewhere = { data_location: 1, external_data: [{ key: "location", value: "model.onnx.data" }] };
  assert.throws(() => values("FLOAT", [1], elsewhere), /in another file: 'model\.onnx\.data'/);
});

test("graphs that lie in one another without end are refused", () => {
  // Built by hand, field in field: the writer has the same limit.
  const wrap = (tag, inner) => [tag, ...varint(inner.length), ...inner];
  const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >> 7)]);
  let bytes = [];
  for (let depth = 0; depth < 200; depth++) bytes = wrap(0x0a, wrap(0x2a, wrap(0x32, bytes)));
  assert.throws(() => readModel(Uint8Array.from(wrap(0x3a, bytes))), /no ONNX model/);
});

test("names of types", () => {
  assert.equal(dtypeName(1), "float32");
  assert.equal(dtypeName(11), "float64");
  assert.equal(dtypeName(7), "int64");
  assert.equal(dtypeName(99), "type 99");
  assert.equal(shapeOf({ name: "x" }), null);
  assert.deepEqual(shapeOf({ type: { tensor_type: { shape: { dim: [{ dim_value: 0 }, {}, { dim_param: "n" }] } } } }), [0, "?", "n"]);
});

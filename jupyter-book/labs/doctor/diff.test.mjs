import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { readModel, writeModel } from "../kit/onnx.js";
import { diff, differences } from "./diff.js";

const file = readFileSync(new URL("../../../data/deploy/model/model.onnx", import.meta.url));
const copy = () => readModel(file);
/** What differs after a change of the course's model. */
function changed(change) {
  const after = copy();
  change(after);
  return diff(copy(), readModel(writeModel(after)));
}

test("a model and itself", () => {
  assert.equal(differences(diff(copy(), copy())), 0);
});

test("a node was added, and one removed", () => {
  const found = changed(({ graph }) => {
    graph.node.push({ op_type: "Tanh", name: "more", input: ["logits"], output: ["soft"], attribute: [] });
    graph.node.splice(1, 1);
  });
  const [gone] = copy().graph.node.slice(1, 2);
  assert.deepEqual(found.nodes.added, [{ op: "Tanh", name: "more", graph: "" }]);
  assert.deepEqual(found.nodes.removed.map(({ op }) => op), [gone.op_type]);
  assert.equal(differences(found), 2);
});

test("an attribute and an input were changed", () => {
  const at = copy().graph.node.findIndex((node) => node.op_type === "Conv");
  const { nodes } = changed(({ graph }) => {
    const pads = graph.node[at].attribute.find((a) => a.name === "pads");
    pads.ints = [2, 2, 2, 2];
    graph.node[at].input[0] = "other";
  });
  assert.equal(nodes.changed.length, 1);
  assert.match(nodes.changed[0].changes.join(), /input 1: .* → other,attribute pads: \[1, 1, 1, 1\] → \[2, 2, 2, 2\]/);
});

test("other names alone are changes, not new nodes", () => {
  const { nodes } = changed(({ graph }) => graph.node.forEach((node) => {
    node.name = `x_${node.name}`;
    node.input = node.input.map((name) => `x_${name}`);
    node.output = node.output.map((name) => `x_${name}`);
  }));
  assert.deepEqual([nodes.added, nodes.removed], [[], []]);
  assert.equal(nodes.changed.length, copy().graph.node.length);
});

test("stored tensors: values, shape, name, added and removed", () => {
  const [first, second, third, fourth] = copy().graph.initializer;
  const { tensors } = changed(({ graph }) => {
    const raw = Uint8Array.from(graph.initializer[0].raw_data);
    raw.set(new Uint8Array(Float32Array.of(1e6).buffer));
    graph.initializer[0].raw_data = raw;
    graph.initializer[1].dims = [1, ...graph.initializer[1].dims];
    graph.initializer[2].name = "renamed";
    graph.initializer.splice(3, 1);
    graph.initializer.push({ name: "new", data_type: 1, dims: [1], float_data: [1] });
  });
  const values = first.dims.reduce((a, b) => a * b, 1);
  assert.equal(tensors.changed[0].name, first.name);
  assert.match(tensors.changed[0].change, new RegExp(`^1 of ${values} values differ, by 1000000 at most$`));
  assert.deepEqual(tensors.changed[1], { name: second.name, kind: `float32[${[1, ...second.dims].join(", ")}]`, change: `was float32[${second.dims.join(", ")}]` });
  assert.deepEqual(tensors.renamed, [{ name: third.name, kind: `float32[${third.dims.join(", ")}]`, change: "now renamed" }]);
  assert.deepEqual(tensors.removed.map(({ name }) => name), [fourth.name]);
  assert.deepEqual(tensors.added, [{ name: "new", kind: "float32[1]" }]);
});

test("opset, metadata, inputs", () => {
  const { header, values } = changed((model) => {
    model.opset_import[0].version = 99;
    model.metadata_props.push({ key: "author", value: "ada" });
    model.graph.input[0].type.tensor_type.shape.dim[0] = { dim_value: 1 };
  });
  const { version } = copy().opset_import[0];
  assert.deepEqual(header, [
    { what: "opset ai.onnx", before: String(version), after: "99" },
    { what: "metadata author", before: null, after: "ada" },
  ]);
  assert.deepEqual(values, [{ what: "input pixels", before: "uint8[batch, 28, 28]", after: "uint8[1, 28, 28]" }]);
});

test("nodes in a graph within a node", () => {
  const branch = (op) => ({ name: "b", node: [{ op_type: op, name: "inner", input: [], output: ["y"], attribute: [] }], input: [], output: [], initializer: [] });
  const model = (op) => readModel(writeModel({ graph: { node: [{ op_type: "If", name: "if", input: ["c"], output: ["y"], attribute: [{ name: "then_branch", type: 5, g: branch(op) }] }] } }));
  const { nodes } = diff(model("Relu"), model("Tanh"));
  assert.deepEqual(nodes.changed.map(({ name, graph, changes }) => [name, graph, changes]), [["inner", "/if.then_branch", ["operator: Relu → Tanh"]]]);
});

// `node tests/read_models.mjs FOLDER` reads each model of the folder with the labs' reader: writes it anew as NAME.again
// and prints what it found in all of them, as JSON.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { attributeValue, dtypeName, readModel, shapeOf, tensorData, writeModel } from "../jupyter-book/labs/kit/onnx.js";

const folder = process.argv[2];
const found = {};
for (const name of readdirSync(folder).filter((name) => name.endsWith(".onnx"))) {
  const model = readModel(readFileSync(join(folder, name)));
  writeFileSync(join(folder, `${name}.again`), writeModel(model));
  const { graph } = model;
  found[name] = {
    opsets: model.opset_import.map(({ domain, version }) => [domain ?? "", version]),
    nodes: graph.node.map(({ op_type, input, output, attribute }) => [
      op_type,
      input,
      output,
      attribute.map((one) => [one.name, simple(attributeValue(one))]),
    ]),
    ends: [...graph.input, ...graph.output].map((info) => [info.name, dtypeName(info.type?.tensor_type?.elem_type), shapeOf(info)]),
    weights: graph.initializer.map((one) => [one.name, dtypeName(one.data_type), one.dims, [...tensorData(one)].map(String)]),
  };
}
process.stdout.write(JSON.stringify(found));

// Numbers and text as they are; of a tensor or a graph only that there is one.
function simple(value) {
  if (Array.isArray(value)) return value.map(simple);
  if (typeof value === "bigint") return `${value}`;
  return value !== null && typeof value === "object" ? "…" : value;
}

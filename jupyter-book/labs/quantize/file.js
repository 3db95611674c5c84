// A model whose convolutions store uint8 weights, each with a DequantizeLinear behind it.

import { ATTRIBUTE_TYPES, DATA_TYPES } from "../kit/onnx.js";

const raw = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** The model (as `readModel` gives it) with quantized weights. found: name of a weight → what `quantized` gives. */
export function withLevels(model, found) {
  const kept = model.graph.initializer.filter(({ name }) => !found.has(name));
  const added = [];
  const nodes = [];
  for (const [name, { levels, scales, zeros }] of found) {
    const { dims } = model.graph.initializer.find((tensor) => tensor.name === name);
    const one = scales.length === 1 ? [] : [scales.length]; // a scalar: one scale for all channels
    added.push(
      { name: `${name}.levels`, dims, data_type: DATA_TYPES.UINT8, raw_data: levels },
      { name: `${name}.scale`, dims: one, data_type: DATA_TYPES.FLOAT, raw_data: raw(scales) },
      { name: `${name}.zero`, dims: one, data_type: DATA_TYPES.UINT8, raw_data: zeros },
    );
    nodes.push({
      op_type: "DequantizeLinear",
      name: `${name}.dequantize`,
      input: [`${name}.levels`, `${name}.scale`, `${name}.zero`],
      output: [name],
      attribute: one.length ? [{ name: "axis", type: ATTRIBUTE_TYPES.INT, i: 0 }] : [],
    });
  }
  return { ...model, graph: { ...model.graph, initializer: [...kept, ...added], node: [...nodes, ...model.graph.node] } };
}

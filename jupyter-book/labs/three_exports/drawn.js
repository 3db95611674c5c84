// A graph as this lab draws it, and an answer beside PyTorch's.

import { apart } from "../kit/numbers.js";
import { attributeValue, tensorData } from "../kit/onnx.js";

const CLOSE = 1e-4;
const INSIDE = { then_branch: "then", else_branch: "else", body: "each time" };

/**
 * `{graph, details}`: the graph without its Constant nodes, which are drawn as weights are: not at all. details[node] are
 * lines of text: the constants that a node reads, the operators of the graphs inside it.
 */
export function drawable(graph) {
  const constants = constantsOf(graph);
  const node = graph.node.filter(({ op_type }) => op_type !== "Constant");
  const hidden = [...constants.keys()].map((name) => ({ name }));
  const details = node.map((one) => [
    one.input.filter((name) => constants.has(name)).map((name) => constants.get(name)).join(" and "),
    ...one.attribute.filter(({ name }) => name in INSIDE).map(({ name, g }) => `${INSIDE[name]}: ${insideOf(g)}`),
  ]);
  return { graph: { ...graph, node, initializer: [...graph.initializer, ...hidden] }, details: details.map((lines) => lines.filter(Boolean)) };
}

/** Name → text of each constant: those of nodes, and the weights of the file. */
function constantsOf({ node, initializer }) {
  const made = node.filter(({ op_type }) => op_type === "Constant");
  const tensors = made.map(({ output, attribute }) => [output[0], attributeValue(attribute[0])]);
  return new Map([...tensors, ...initializer.map((tensor) => [tensor.name, tensor])].map(([name, tensor]) => [name, textOf(tensor)]));
}

function textOf(tensor) {
  const values = Array.from(tensorData(tensor), Number).join(", ");
  return tensor.dims.length ? `[${values}]` : values;
}

function insideOf(graph) {
  const constants = constantsOf(graph);
  const text = ({ op_type, input }) => [op_type, ...input.filter((name) => constants.has(name)).map((name) => constants.get(name))].join(" ");
  const kept = graph.node.filter(({ op_type }) => op_type !== "Constant" && op_type !== "Identity");
  return kept.map(text).join(", ");
}

/** Sizes of nested lists: [3, 2] of three lists of two numbers. */
export const sizes = (value) => (Array.isArray(value) ? [value.length, ...sizes(value[0])] : []);

/** `{verdict: "right" | "wrong", difference}` of an answer ({dims, data}) beside PyTorch's nested lists. */
export function judge({ dims, data }, torch) {
  const same = `${dims}` === `${sizes(torch)}`;
  const difference = same ? apart(data, torch.flat()) : Infinity;
  return { verdict: difference <= CLOSE ? "right" : "wrong", difference };
}

/** A number as it is shown: at most four decimals. */
export const short = (value) => `${Number(value.toFixed(4))}`.replace("-", "\u2212");

/** Nested lists as Python writes them. */
export const matrix = (rows) => `[${rows.map((row) => `[${row.join(", ")}]`).join(", ")}]`;

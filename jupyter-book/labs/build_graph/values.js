// Values of tensors as text: what is written for an input, and what a node has written.

import { DATA_TYPES, dtypeName, shapeOf } from "../kit/onnx.js";

const MOST = 10000; // numbers for an input
const SHOWN = 24; // numbers of a tensor
const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, bool: Uint8Array };
const FREE = 2; // of a size that the file leaves free

/** Lists such as `[[1, 2, 3], [2, 3, 4]]` of the shape that an input asks for. */
export function made(info) {
  const sizes = (shapeOf(info) ?? [FREE]).map((size) => (typeof size === "number" ? size : FREE));
  const at = (depth, from) => (depth === sizes.length ? from : Array.from({ length: sizes[depth] }, (_, i) => at(depth + 1, from + i)));
  return JSON.stringify(at(0, 1)).replaceAll(",", ", ");
}

/** `{type, data, dims}` for onnxruntime-web. Throws an Error with one sentence. text: lists as Python writes them. */
export function parseValues(info, text) {
  const type = dtypeName(info.type?.tensor_type?.elem_type ?? DATA_TYPES.FLOAT);
  const name = `'${info.name}'`;
  if (!ARRAYS[type]) throw new Error(`${name} takes ${type}, for which no values can be written in this page.`);
  let lists;
  try {
    lists = JSON.parse(text.replace(/\bTrue\b/g, "true").replace(/\bFalse\b/g, "false"));
  } catch {
    throw new Error(`The values of ${name} are written as lists, such as ${made(info)}.`);
  }
  const dims = [];
  for (let part = lists; Array.isArray(part); part = part[0]) dims.push(part.length);
  const flat = [lists].flat(Infinity);
  const even = (part, depth) => (Array.isArray(part) ? part.length === dims[depth] && part.every((one) => even(one, depth + 1)) : depth === dims.length);
  if (flat.length > MOST) throw new Error(`${name} has ${flat.length} values; ${MOST} is the most here.`);
  if (!even(lists, 0)) throw new Error(`The lists of ${name} are not equally long, or not equally deep.`);
  const whole = type.includes("int");
  for (const one of flat) {
    const right = typeof one === "number" ? type !== "bool" && (!whole || Number.isInteger(one)) : typeof one === "boolean" && type === "bool";
    if (!right) throw new Error(`${name} takes ${type}, and ${JSON.stringify(one)} is not ${type === "bool" ? "true or false" : whole ? "a whole number" : "a number"}.`);
  }
  return { type, data: ARRAYS[type].from(flat, type === "int64" ? BigInt : Number), dims };
}

/** Values as nested lists; of many, the first ones. data: of a tensor of onnxruntime-web. */
export function listed({ data, dims, type }) {
  const all = [...data.slice(0, SHOWN)].map((one) => (type === "bool" ? String(Boolean(one)) : short(one)));
  if (data.length > SHOWN) return `${all.join(", ")}, … (${data.length} values)`;
  let rows = all;
  for (const size of dims.slice(1).reverse()) rows = Array.from({ length: size ? rows.length / size : 0 }, (_, i) => `[${rows.slice(i * size, (i + 1) * size).join(", ")}]`);
  return dims.length ? `[${rows.join(", ")}]` : (rows[0] ?? "");
}

/** The sum of each row of a matrix of floats, as text; empty for every other tensor. */
export function rowSums({ data, dims, type }) {
  const [rows, columns] = dims;
  if (dims.length !== 2 || !rows || !["float32", "float64"].includes(type)) return "";
  const sums = Array.from({ length: Math.min(rows, SHOWN) }, (_, i) => short([...data.slice(i * columns, (i + 1) * columns)].reduce((sum, one) => sum + one, 0)));
  return sums.join(", ") + (rows > SHOWN ? ", …" : "");
}

const short = (one) => (typeof one === "number" && !Number.isInteger(one) ? String(Number(one.toPrecision(5))) : String(one));

// ONNX files in the page: `readModel(bytes)` gives a plain object with the field names of onnx.proto, `writeModel(object)`
// the bytes. A whole number beyond 2^53 is a BigInt, any other one a number. Repeated fields are always there, perhaps
// empty; any other field only if the file has it.

import Long from "./vendor/long.js";
import schema from "./vendor/onnx_schema.js";
import protobuf from "./vendor/protobuf.js";

protobuf.util.Long = Long;
protobuf.configure();

const root = protobuf.Root.fromJSON(schema);
const Model = root.lookupType("onnx.ModelProto");

export const DATA_TYPES = root.lookupEnum("onnx.TensorProto.DataType").values; // { FLOAT: 1, … }
export const ATTRIBUTE_TYPES = root.lookupEnum("onnx.AttributeProto.AttributeType").values;
const TYPE_NAMES = Object.fromEntries(Object.entries(DATA_TYPES).map(([name, number]) => [number, name]));
const NUMPY_NAMES = { FLOAT: "float32", DOUBLE: "float64" };

/** A ModelProto as a plain object. Throws an Error with one sentence when the bytes are none. */
export function readModel(bytes) {
  const view = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let message;
  try {
    message = Model.decode(protobuf.Reader.create(view));
  } catch (error) {
    throw new Error(`These ${view.length} bytes are no ONNX model: ${error.message}.`);
  }
  return numbers(Model.toObject(message, { arrays: true }));
}

/** The bytes of a model: of the object that `readModel` gives, or of one like it. */
export function writeModel(model) {
  return Model.encode(Model.fromObject(longs(model))).finish();
}

/** "float32" of 1, as NumPy and onnxruntime-web name it; "type 99" of a number that no ONNX type has. */
export function dtypeName(number) {
  const name = TYPE_NAMES[number];
  return name ? (NUMPY_NAMES[name] ?? name.toLowerCase()) : `type ${number}`;
}

/** Shape of an input or output (ValueInfoProto): numbers, names of free sizes, "?" without either; null for no shape. */
export function shapeOf(info) {
  const dims = info.type?.tensor_type?.shape?.dim;
  return dims ? dims.map((dim) => dim.dim_value ?? (dim.dim_param || "?")) : null;
}

/** Text of a field of bytes, such as the `s` of an attribute. */
export function text(bytes) {
  return new TextDecoder().decode(bytes);
}

/** Value of an AttributeProto: a number, text, an object (tensor, graph, type), or an array of these. */
export function attributeValue(attribute) {
  const kind = Object.keys(ATTRIBUTE_TYPES).find((name) => ATTRIBUTE_TYPES[name] === attribute.type) ?? "UNDEFINED";
  const field = { FLOAT: "f", INT: "i", STRING: "s", TENSOR: "t", GRAPH: "g", SPARSE_TENSOR: "sparse_tensor" }[kind];
  const fields = { TYPE_PROTO: "tp", TYPE_PROTOS: "type_protos", SPARSE_TENSORS: "sparse_tensors", GRAPHS: "graphs" };
  const value = attribute[field ?? fields[kind] ?? kind.toLowerCase()];
  if (kind === "STRING") return text(value ?? new Uint8Array());
  return kind === "STRINGS" ? value.map(text) : (value ?? (kind === "INT" || kind === "FLOAT" ? 0 : null));
}

// How the elements lie in raw_data, and in which field they lie otherwise.
const WHOLE = {
  UINT8: [Uint8Array, "int32_data"],
  INT8: [Int8Array, "int32_data"],
  UINT16: [Uint16Array, "int32_data"],
  INT16: [Int16Array, "int32_data"],
  INT32: [Int32Array, "int32_data"],
  BOOL: [Uint8Array, "int32_data"],
  FLOAT: [Float32Array, "float_data"],
  COMPLEX64: [Float32Array, "float_data", 2],
  DOUBLE: [Float64Array, "double_data"],
  COMPLEX128: [Float64Array, "double_data", 2],
  INT64: [BigInt64Array, "int64_data"],
  UINT64: [BigUint64Array, "uint64_data"],
  UINT32: [Uint32Array, "uint64_data"],
};
// Bits of the exponent and of the fraction, bias, which values are not numbers: "ieee" also has infinities, "fn" has none
// and NaN where all bits are set, "fnuz" has NaN where -0 would be, "none" has numbers only.
const SMALL = {
  FLOAT16: [5, 10, 15, "ieee"],
  BFLOAT16: [8, 7, 127, "ieee"],
  FLOAT8E4M3FN: [4, 3, 7, "fn"],
  FLOAT8E4M3FNUZ: [4, 3, 8, "fnuz"],
  FLOAT8E5M2: [5, 2, 15, "ieee"],
  FLOAT8E5M2FNUZ: [5, 2, 16, "fnuz"],
  FLOAT4E2M1: [2, 1, 1, "none"],
};
const PACKED = { UINT4: 4, INT4: 4, UINT2: 2, INT2: 2, FLOAT4E2M1: 4 }; // bits of an element; several lie in one byte

/**
 * The elements of a TensorProto: a typed array as long as the shape says, an array of strings for STRING. Types that
 * JavaScript lacks: half and smaller floats come as Float32Array, 4 and 2 bits as 8, BOOL as 0 and 1, complex numbers as
 * pairs. Throws an Error with one sentence when they are not in the file or not as many as the shape says.
 */
export function tensorData(tensor) {
  const kind = TYPE_NAMES[tensor.data_type];
  const what = `The tensor ${tensor.name ? `'${tensor.name}' ` : ""}`;
  const count = tensor.dims.reduce((product, size) => product * Number(size), 1);
  if (tensor.data_location === 1) {
    const file = tensor.external_data.find((entry) => entry.key === "location")?.value;
    throw new Error(`${what}has its values in another file: '${file}'.`);
  }
  let found;
  if (kind === "STRING") found = tensor.string_data.map(text);
  else if (WHOLE[kind]) found = whole(tensor, ...WHOLE[kind]);
  else if (SMALL[kind] || PACKED[kind]) found = small(tensor, kind, count);
  else throw new Error(`${what}has elements of ${dtypeName(tensor.data_type)}, which are not read here.`);
  const wanted = count * (WHOLE[kind]?.[2] ?? 1);
  if (found.length !== wanted) {
    throw new Error(`${what}has the shape [${tensor.dims}], which takes ${wanted} values; the file holds ${found.length}.`);
  }
  return found;
}

function whole(tensor, Kind, field) {
  const { raw_data: raw } = tensor;
  if (raw?.length) {
    const length = raw.length / Kind.BYTES_PER_ELEMENT;
    return Number.isInteger(length) ? new Kind(new Uint8Array(raw).buffer) : { length };
  }
  const big = Kind === BigInt64Array || Kind === BigUint64Array;
  return Kind.from(tensor[field], big ? BigInt : undefined);
}

function small(tensor, kind, count) {
  const wide = kind === "FLOAT16" || kind === "BFLOAT16";
  let codes = whole(tensor, wide ? Uint16Array : Uint8Array, "int32_data");
  if (PACKED[kind]) codes = unpacked(codes, PACKED[kind], count);
  if (SMALL[kind]) return ArrayBuffer.isView(codes) ? Float32Array.from(codes, decoder(...SMALL[kind])) : codes;
  if (!kind.startsWith("INT")) return codes;
  const sign = 1 << (PACKED[kind] - 1);
  return Int8Array.from(codes, (code) => (code ^ sign) - sign);
}

function unpacked(bytes, bits, count) {
  const inOne = 8 / bits;
  const length = bytes.length === Math.ceil(count / inOne) ? count : bytes.length * inOne;
  const element = (_, i) => (bytes[Math.floor(i / inOne)] >> (bits * (i % inOne))) & ((1 << bits) - 1);
  return Uint8Array.from({ length }, element);
}

/** A function from the bits of a small float to its value. */
function decoder(exponentBits, fractionBits, bias, kind) {
  const top = 2 ** exponentBits - 1;
  const full = 2 ** fractionBits - 1;
  return (code) => {
    const exponent = (code >> fractionBits) & top;
    const fraction = code & full;
    const negative = (code >> (exponentBits + fractionBits)) & 1;
    if (kind === "fnuz" && negative && !exponent && !fraction) return NaN;
    if (kind === "ieee" && exponent === top) return fraction ? NaN : negative ? -Infinity : Infinity;
    if (kind === "fn" && exponent === top && fraction === full) return NaN;
    const size = exponent ? (1 + fraction / (full + 1)) * 2 ** (exponent - bias) : (fraction / (full + 1)) * 2 ** (1 - bias);
    return negative ? -size : size;
  };
}

/** The same object with a number or BigInt in place of each Long. It was made here, so it is changed in place. */
function numbers(value) {
  if (Long.isLong(value)) return plain(value);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  for (const key in value) {
    const part = value[key];
    if (typeof part === "object") value[key] = numbers(part);
  }
  return value;
}

function plain(long) {
  const number = long.toNumber();
  return Number.isSafeInteger(number) ? number : BigInt(long.toString());
}

/** A copy with a Long in place of each BigInt. */
function longs(value) {
  if (typeof value === "bigint") return Long.fromString(value.toString(), value > 2n ** 63n - 1n);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map(longs);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, longs(part)]));
}

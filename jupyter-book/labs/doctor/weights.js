// The stored data of tensors: how long it is, what bytes it has, and which of its numbers are odd.
// As course_utils/diagnosis/findings/weights.py and external_data.py have it.

import { elements, isExternal } from "./patient.js";
import { amount, count, finding, plain } from "./words.js";

const FLOAT = 1;
const FLOAT16 = 10;
const DOUBLE = 11;
const BFLOAT16 = 16;
const UINT4 = 21; // from here on there are types of less than a byte, among others
const PIECE = 4 * 2 ** 20; // bytes that are copied at a time
// How the values of a typed field lie in memory, by dtype.
const FIELDS = {
  1: ["float_data", Float32Array], 2: ["int32_data", Uint8Array], 3: ["int32_data", Int8Array], 4: ["int32_data", Uint16Array],
  5: ["int32_data", Int16Array], 6: ["int32_data", Int32Array], 7: ["int64_data", BigInt64Array], 9: ["int32_data", Uint8Array],
  10: ["int32_data", Uint16Array], 11: ["double_data", Float64Array], 12: ["uint64_data", Uint32Array], 13: ["uint64_data", BigUint64Array],
  14: ["float_data", Float32Array], 15: ["double_data", Float64Array], 16: ["int32_data", Uint16Array], 17: ["int32_data", Uint8Array],
  18: ["int32_data", Uint8Array], 19: ["int32_data", Uint8Array], 20: ["int32_data", Uint8Array],
}; // prettier-ignore

/** The data of a tensor as it would lie in memory; null where it is not in the file, or is not as long as it must be. */
export function bytesOf(patient, tensor) {
  const expected = patient.expectedBytes(tensor);
  if (expected === null || isExternal(tensor)) return null;
  const bytes = tensor.raw_data ?? typedBytes(tensor);
  return bytes?.length === expected ? bytes : null;
}

function typedBytes(tensor) {
  const [field, Kind] = FIELDS[tensor.data_type] ?? [];
  if (!field) return null;
  const big = Kind === BigInt64Array || Kind === BigUint64Array;
  return new Uint8Array(Kind.from(tensor[field], big ? BigInt : Number).buffer);
}

/** Data that is longer or shorter than dtype and shape say: a damaged file, or a shape too large to be true. */
export function* sizes(patient) {
  const wrong = [];
  for (const [where, tensor] of patient.eachTensor()) {
    const says = `${patient.dtypeName(tensor.data_type)}[${tensor.dims.slice(0, 8).join(", ")}]`;
    const want = patient.expectedBytes(tensor);
    const have = storedBytes(patient, tensor);
    if (tensor.dims.some((d) => d < 0)) wrong.push([where, `${says} has a negative dimension`]);
    else if (want !== null && have !== null && have !== want) {
      wrong.push([where, `${says} takes ${amount(want)}, and ${amount(have)} are stored`]);
    }
  }
  if (!wrong.length) return;
  const [where, what] = wrong[0];
  yield finding("weights-size-mismatch", `Of '${plain(where.name)}': ${what}.`, wrong.map(([at]) => at));
}

/** Bytes that are stored, as they would lie in memory; null where that cannot be said. */
function storedBytes(patient, tensor) {
  if (isExternal(tensor)) {
    const where = locate(tensor);
    return where.problem || where.way === "outside" ? null : where.length;
  }
  if (tensor.raw_data) return tensor.raw_data.length;
  const want = patient.expectedBytes(tensor);
  if (!want) return 0;
  if (tensor.data_type >= UINT4) return null;
  const [field, each] = patient.tables.external_data.TYPED[tensor.data_type] ?? ["int32_data", 1];
  return Math.floor((tensor[field].length * want) / elements(tensor.dims) / each);
}

/** Where an external tensor says that its data is. length: null where it does not say. problem: why it makes no sense.
 * way: whether it leads out of the folder. */
function locate(tensor) {
  const entries = new Map(tensor.external_data.map((e) => [e.key ?? "", e.value ?? ""]));
  const location = entries.get("location") ?? "";
  const offset = whole(entries.get("offset") ?? "0");
  const length = whole(entries.get("length") ?? "");
  if (!location) return { location, length, problem: "it names no file" };
  const wrong = offset === null || offset < 0 || (length === null && entries.has("length")) || length < 0;
  if (wrong) return { location, length, problem: "its offset or length is no number" };
  return { location, length, problem: "", way: wayOf(location) };
}

/** As Python's int() reads a text. */
function whole(text) {
  return /^\s*[+-]?\d+(_\d+)*\s*$/.test(text) ? Number(text.replaceAll("_", "")) : null;
}

/** "outside" where a name surely leads out of the model's folder, "unsure" where that depends on the folder's own name. */
export function wayOf(name) {
  if (name.includes("\0") || name.includes("\\") || name[1] === ":" || name.startsWith("/")) return "outside";
  let [up, down] = [0, 0]; // out of the folder, and then into others
  for (const part of name.split("/")) {
    if (part === "..") [up, down] = down ? [up, down - 1] : [up + 1, 0];
    else if (part && part !== ".") down += 1;
  }
  if (!up) return "";
  return down <= up ? "outside" : "unsure";
}

/** Weights in other files: which of the entries make no sense, and which lead out of the model's folder. */
export function* external(patient) {
  const [escapes, odd, files, unsure] = [[], [], new Map(), new Set()];
  for (const [where, tensor] of patient.eachTensor()) {
    if (!isExternal(tensor)) continue;
    const { location, problem, way } = locate(tensor);
    if (problem) odd.push([where, problem]);
    else if (way === "outside") escapes.push([where, location]);
    else files.set(location, (files.get(location) ?? 0) + 1);
    if (way === "unsure") unsure.add(location);
  }
  for (const [name, tensors] of [...files].slice(0, 4)) {
    patient.notExamined.push(`${count(tensors, "tensor")} in the file '${plain(name)}' beside the model: this page opens one file alone.`);
  }
  for (const name of [...unsure].slice(0, 4)) {
    patient.notExamined.push(`Whether '${plain(name)}' lies outside the model's folder: Python's doctor, which sees the folder, can tell.`);
  }
  if (files.size > 4) patient.notExamined.push(`Tensors in ${files.size - 4} more files beside the model.`);
  if (escapes.length) {
    const names = [...new Set(escapes.map(([, name]) => `'${plain(name)}'`))].slice(0, 4).join(", ");
    yield finding("external-path-outside", `It names ${names}. ONNX Runtime refuses that.`, escapes.map(([at]) => at));
  }
  if (odd.length) {
    const text = `${count(odd.length, "tensor")}; of the first: ${odd[0][1]}.`;
    yield finding("external-entry-damaged", text, odd.map(([at]) => at));
  }
}

/** How many numbers of a tensor of floats are NaN, infinite, minus infinity, or subnormal; null where there is no data. */
export function oddNumbers(patient, tensor) {
  const bytes = bytesOf(patient, tensor);
  if (!bytes) return null;
  const found = { nan: 0, above: 0, below: 0, subnormal: 0 };
  for (let start = 0; start < bytes.length; start += PIECE) {
    // Copied piece by piece: in the file numbers begin at any byte, and a typed array cannot.
    countOdd(bytes.slice(start, start + PIECE).buffer, tensor.data_type, found);
  }
  return found;
}

function countOdd(buffer, type, found) {
  if (type === FLOAT16 || type === BFLOAT16) {
    const top = type === FLOAT16 ? 0x7c00 : 0x7f80;
    for (const bits of new Uint16Array(buffer)) {
      if ((bits & top) !== top) continue;
      if (bits & 0x7fff & ~top) found.nan += 1;
      else found[bits & 0x8000 ? "below" : "above"] += 1;
    }
    return;
  }
  const tiny = type === FLOAT ? 2 ** -126 : 2 ** -1022; // the smallest number in usual form
  for (const x of type === FLOAT ? new Float32Array(buffer) : new Float64Array(buffer)) {
    if (x === Infinity) found.above += 1;
    else if (x === -Infinity) found.below += 1;
    else if (x !== x) found.nan += 1;
    else if (x !== 0 && x < tiny && x > -tiny) found.subnormal += 1;
  }
}

export const FLOATS = [FLOAT, DOUBLE, FLOAT16, BFLOAT16];
export { DOUBLE };

/** A number for some bytes: the same bytes, the same number. Different ones may share it. */
export function checksum(bytes) {
  let hash = 2166136261;
  for (let i = 0; i < bytes.length; i += 1) hash = Math.imul(hash ^ bytes[i], 16777619);
  return hash >>> 0;
}

export function sameBytes(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return false;
  return true;
}

// What a file is that is no whole ONNX model: by its first bytes, and by the fields at its top. Nothing is unpacked.
// As course_utils/file_formats.py has it; the tables of first bytes and of texts are taken from there.

import { BYTES, topFields, VARINT } from "./wire.js";

const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/gu;
const latin = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

/** [what the file is, what to do], from its first 64 KiB; null where they say nothing. */
export function recognise(head, T) {
  for (const [at, magic, what, cure] of T.MAGIC) {
    if (head.length >= at + magic.length && magic.every((byte, i) => head[at + i] === byte)) return [what, cure];
  }
  const start = latin(head.subarray(0, 16));
  if (start.startsWith("PK\x03\x04") || start.startsWith("PK\x05\x06")) return zip(head, T);
  if (/^\x80[\x02-\x05]/.test(start)) return ["a pickle, perhaps an old PyTorch checkpoint", T.EXPORT];
  if (start.slice(8, 10) === '{"' && head.subarray(5, 8).every((byte) => byte === 0) && head.subarray(0, 5).some(Boolean)) {
    return ["a safetensors file, which holds weights and no graph", T.EXPORT];
  }
  if (!head.some(Boolean)) return ["all zeros where the model should begin, as after a download that stopped early", "Download or copy it again."];
  return textKind(head, T) ?? protobufKind(head, T);
}

/** By the names in the archive's first entries; the entries themselves stay packed. */
function zip(head, T) {
  const names = [];
  for (let at = 0; at + 30 <= head.length; at += 1) {
    if (head[at] !== 0x50 || latin(head.subarray(at, at + 4)) !== "PK\x03\x04") continue;
    names.push(latin(head.subarray(at + 30, at + 30 + head[at + 26] + 256 * head[at + 27])));
    at += 29;
  }
  const has = (pattern) => names.some((name) => pattern.test(name));
  if (has(/(data\.pkl|constants\.pkl|\.format_version|byteorder)$/)) {
    return ["a zip archive from PyTorch (torch.save, torch.jit.save or torch.export.save)", T.EXPORT];
  }
  if (has(/\.npy/)) return ["a NumPy archive (.npz)", "Choose the .onnx file."];
  if (has(/model\.weights\.h5|^config\.json/)) return ["a zip archive, perhaps a Keras model", T.TF2ONNX];
  return ["a zip archive", "Unpack it, and choose the .onnx file in it."];
}

function decoded(bytes, encoding, fatal) {
  try {
    return new TextDecoder(encoding, { fatal }).decode(bytes).replaceAll("\ufffd", "");
  } catch {
    return null;
  }
}

function textKind(head, T) {
  const mark = head[0] * 256 + head[1];
  const encoding = mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "utf-8";
  // At the cut a letter may be torn apart; elsewhere it must be proper text.
  const start = decoded(head.subarray(0, 2000), encoding, head.length < 2000)?.replace(/^[\ufeff \t\r\n]+/, "");
  const odd = start?.replace(/[\r\n\t\f]/g, "").match(UNPRINTABLE)?.length ?? 0;
  if (!start || odd > Math.floor([...start].length / 50)) return null;
  const line = start.split(/[\r\n]/)[0].replace(UNPRINTABLE, " ").trim();
  const quote = ` that begins with “${line.slice(0, 80)}${line.length > 80 ? "…" : ""}”`;
  for (const [pattern, what, cure] of T.TEXTS) {
    if (!new RegExp(`^(?:${pattern})`, "is").test(start)) continue;
    return [what + (/(ML|JSON) file/.test(what) ? quote : ""), cure];
  }
  return [`a text file${quote}`, "Download or export the model again, or choose the .onnx file."];
}

/** Formats that are protobuf messages, as ONNX is: by which fields stand at the top. */
function protobufKind(head, T) {
  const [fields] = topFields(head);
  if (fields[0]?.number !== 1) return null;
  return fields[0].kind === VARINT ? afterNumber(head, fields, T) : afterPart(head, fields, T);
}

/** Messages that begin with a number in field 1, which in ONNX is ir_version. */
function afterNumber(head, fields, T) {
  const [, second] = fields;
  if (fields.some((f) => f.number >= T.FIRST_COREML && f.kind === BYTES)) {
    return ["a Core ML model (.mlmodel)", "Use the .onnx file that it was made from, or export the original model."];
  }
  if (second?.number === 2 && second.kind === BYTES && !isText(head.subarray(second.content, second.end))) {
    return ["a TensorFlow SavedModel (saved_model.pb)", T.TF2ONNX];
  }
  if (fields.some((f) => f.number === 2 && f.kind === VARINT) && fields.every((f) => T.IN_A_TENSOR.includes(f.number))) {
    return ["a single tensor (onnx.TensorProto)", "Choose the .onnx file that it belongs to."];
  }
  return null;
}

/** Messages that begin with another message or a text in field 1. */
function afterPart(head, fields, T) {
  const inner = head.subarray(fields[0].content, fields[0].end).subarray(0, 4096);
  const parts = new Map(topFields(inner)[0].filter((f) => f.kind === BYTES).reverse().map((f) => [f.number, inner.subarray(f.content, f.end)]));
  if (inner[0] === 8) return ["a PaddlePaddle model", "Convert it with paddle2onnx."];
  if (/^[A-Z_]\w*$/.test(latin(parts.get(2) ?? [])) && parts.has(1)) return ["a TensorFlow graph (.pb)", T.TF2ONNX];
  if (isText(inner) && fields.some((f) => (f.number === 2 || f.number === 100) && f.kind === BYTES)) {
    return ["a Caffe model", "Convert the original model to ONNX."];
  }
  return null;
}

function isText(bytes) {
  for (let cut = 0; cut < 4; cut += 1) {
    const text = decoded(bytes.subarray(0, Math.max(0, bytes.length - cut)), "utf-8", true); // a letter may be torn apart at the end
    if (text !== null) return !text.replace(/[\r\n\t\f]/g, "").match(UNPRINTABLE);
  }
  return false;
}

/** Why these bytes, which were not read as a model, are none: {kind, what, cure}. Only what stands at the top is looked at. */
export function explain(bytes, T) {
  const known = bytes.length ? recognise(bytes.subarray(0, T.HEAD), T) : null;
  if (known) return { kind: "foreign", what: known[0], cure: known[1] };
  const { whole, end, cut } = extent(bytes, T);
  const number = (n) => n.toLocaleString("en");
  if (cut > bytes.length) return { kind: "truncated", what: `a part of it says that it ends at byte ${number(cut)}` };
  if (cut) return { kind: "truncated", what: "there is a header, and no graph with its opsets behind it" };
  if (whole && end < bytes.length) return { kind: "extra", what: `a model ends at byte ${number(end)}, and something stands behind it` };
  const front = inFront(bytes, T);
  if (front) return { kind: "extra", what: `${front} byte${front > 1 ? "s stand" : " stands"} before the model` };
  return { kind: "damaged", what: "it is not in the format of ONNX" };
}

/** How many bytes stand before a whole model, such as the mark of a text's encoding; 0 for none. */
function inFront(bytes, T) {
  for (let n = 1; n < Math.min(T.MOST_IN_FRONT, bytes.length); n += 1) {
    if (bytes[n] !== T.IR << 3) continue;
    const rest = bytes.subarray(n);
    const { whole, end } = extent(rest, T);
    if (whole && end === rest.length) return n;
  }
  return 0;
}

/** Whether a whole model stands at the beginning; where it ends; and, where a part of a model is cut off, the byte at which it
 * says that it ends (or the end of the view, where the cut is between two parts). */
function extent(bytes, T) {
  const [fields, rest] = topFields(bytes);
  const numbers = new Set();
  let [end, last, ir] = [0, 0, 0];
  const isWhole = () => numbers.has(T.GRAPH) && (numbers.has(T.OPSET) || ir < 3);
  for (const f of fields) {
    const kind = T.ONNX[f.number];
    const header = f.number < T.GRAPH && f.number !== T.IR && kind === BYTES;
    const fits = kind === f.kind && !(header && !isText(bytes.subarray(f.content, Math.min(f.end, f.content + 64))));
    const whole = isWhole();
    const prose = () => bytes.length - f.start > 3 && isText(bytes.subarray(f.start, f.start + 200));
    if (!fits || (whole && f.number < last) || (whole && f.end > bytes.length && prose())) return { whole, end, cut: 0 };
    if (f.end > bytes.length) return { whole, end, cut: f.end };
    if (f.number === T.IR) ir = bytes[f.content] & 0x7f;
    numbers.add(f.number);
    [end, last] = [f.end, f.number];
  }
  const cutBetween = !isWhole() && rest >= bytes.length && numbers.size > 0;
  return { whole: isWhole(), end, cut: cutBetween ? bytes.length : 0 };
}

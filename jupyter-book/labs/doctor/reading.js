// Reading a file: either a model to examine, or the one finding that says why it is none.
// As course_utils/diagnosis/file/reading.py has it.

import { readModel } from "../kit/onnx.js";
import { explain } from "./formats.js";
import { amount, finding } from "./words.js";
import { Malformed, scan, TooComplex, TooMuchHere } from "./wire.js";

const CODES = { foreign: "not-onnx", truncated: "truncated", extra: "extra-bytes" };

/** {model} or {finding}. Throws TooMuchHere for a file that may be sound, and is too much for a page. */
export function read(bytes, { tables }) {
  if (!bytes.length) return { finding: finding("empty-file", "It has 0 bytes: nothing was written, or copying stopped early.") };
  const deepest = tables.skeleton.DEEPEST - 8;
  let levels = 0;
  let model;
  try {
    levels = scan(bytes, tables.skeleton);
    model = levels > 2 * tables.skeleton.DEEPEST ? null : readModel(bytes);
  } catch (error) {
    if (error instanceof TooMuchHere) throw error;
    if (error instanceof TooComplex) return { finding: finding("too-complex", `It has ${error.message}.`) };
    return { finding: unreadable(bytes, tables, error instanceof Malformed ? error : null, levels > deepest) };
  }
  if (!model) return { finding: unreadable(bytes, tables, null, true) };
  if (!model.graph || !(model.ir_version || model.graph.node.length || model.opset_import.length)) {
    return { finding: headless(bytes, tables, model) };
  }
  return { model };
}

/** It reads like a protobuf message, as some short texts do, and has no graph. */
function headless(bytes, tables, model) {
  const known = ofFault(explain(bytes, tables.file_formats), bytes.length);
  if (known) return known;
  const size = amount(bytes.length);
  if (model.ir_version || model.opset_import.length) return finding("truncated", `It has ${size} and a header, and no graph behind it.`);
  return finding("damaged", `Its ${size} hold no graph, so it is no model.`);
}

function unreadable(bytes, tables, malformed, deep) {
  const known = ofFault(explain(bytes, tables.file_formats), bytes.length);
  if (known) return known;
  if (deep) {
    const { DEEPEST } = tables.skeleton;
    return finding("too-complex", `Graphs stand within graphs. Protobuf stops at ${DEEPEST} levels of messages.`);
  }
  const reason = malformed ? `: ${malformed.message}` : "";
  return finding("damaged", `Its ${amount(bytes.length)} are not in the format of ONNX${reason}.`);
}

function ofFault({ kind, what, cure }, size) {
  if (kind === "foreign") return finding("not-onnx", `It has ${amount(size)}, and looks like ${what}.`, [], cure);
  return CODES[kind] ? finding(CODES[kind], `It has ${size.toLocaleString("en")} bytes; ${what}.`) : null;
}

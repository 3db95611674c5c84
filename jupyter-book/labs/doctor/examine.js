// The examination in the page: from the bytes of a file to what was found. No element of a page is touched here, so that a
// worker and Node can run it. Which codes are looked for, and which are left to Python's doctor, is listed in codes.json.

import { unfused } from "./fusion.js";
import { unrolled } from "./loops.js";
import { names } from "./names.js";
import { notes } from "./notes.js";
import { finite, float64, twice } from "./numbers.js";
import { domain, opType, Patient } from "./patient.js";
import { dynamicConv, incomplete, scales, scores, uncalibrated } from "./quantization.js";
import { levels } from "./quantized_weights.js";
import { read } from "./reading.js";
import { fixedBatch } from "./shapes.js";
import { recursion, tidy, types } from "./structure.js";
import { training } from "./training.js";
import { bound, clashes, compiled, numbers, operators } from "./versions.js";
import { external, sizes } from "./weights.js";
import { amount, listed, plain } from "./words.js";

// In the order of Python's doctor.
const CHECKS = [
  external, sizes, names, types, tidy, recursion, numbers, operators, clashes, bound, compiled, training, unrolled, fixedBatch,
  finite, float64, twice, unfused, scales, uncalibrated, scores, dynamicConv, incomplete, levels, notes,
]; // prettier-ignore

/** {facts, findings, notExamined}. known: the catalogue of `models/doctor.py`. Throws TooMuchHere, with what is too much for a page. */
export function examine(bytes, known) {
  const catalogue = bare(known);
  const { model, finding } = read(bytes, catalogue);
  if (finding) return { facts: {}, findings: described([finding], catalogue), notExamined: [] };
  const patient = new Patient(model, bytes.length, catalogue);
  const found = [];
  for (const check of CHECKS) {
    try {
      for (const one of check(patient)) found.push(one); // one by one, so that those before an error stay
    } catch (error) {
      // A model can be odd in ways that nobody thought of: then the other checks still count.
      patient.notExamined.push(`The check “${check.name}” stopped: ${plain(error.message)}`);
    }
  }
  return { facts: facts(patient), findings: described(found, catalogue), notExamined: patient.notExamined };
}

/** A copy whose tables have no entries but their own: an operator may be called `constructor`. */
function bare(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(bare);
  return Object.assign(Object.create(null), Object.fromEntries(Object.entries(value).map(([name, part]) => [name, bare(part)])));
}

/** With the texts of the catalogue, the worst first. */
function described(found, { codes, severities }) {
  const order = Object.keys(severities);
  const whole = found.map((one) => ({ ...codes[one.code], ...one, cure: inPage(one.advice || codes[one.code].cure) }));
  return whole.sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
}

/** In a page, a file is chosen: no path is given. */
function inPage(cure) {
  return cure.replace(/(G|g)ive the path of (?:the \.onnx file|an ONNX model)/g, (_, letter) => `${letter === "G" ? "Choose" : "choose"} the .onnx file`);
}

/** What kind of model it is, in a line. */
function facts(patient) {
  const used = new Set();
  for (const [, , node] of patient.eachNode()) used.add(domain(node));
  const dtypes = new Map();
  for (const [, tensor] of patient.eachTensor()) {
    const name = patient.dtypeName(tensor.data_type);
    dtypes.set(name, (dtypes.get(name) ?? 0) + (patient.expectedBytes(tensor) ?? 0));
  }
  const main = [...dtypes].sort((a, b) => b[1] - a[1]).slice(0, 2).map(([name]) => name).join(", ");
  const opsets = [...patient.opsets].filter(([name]) => used.has(name)).map(([name, version]) => `${name || "ai.onnx"} ${version}`);
  const { producer_name: producer = "", producer_version: version = "" } = patient.model;
  return {
    file: amount(patient.size),
    weights: `${amount(patient.weightsBytes)}${main ? ` (${main})` : ""}`,
    nodes: patient.scopes.reduce((sum, scope) => sum + scope.nodes.length, 0).toLocaleString("en"),
    inputs: String(patient.inputValues().length),
    outputs: String(patient.graph.output.length),
    "IR version": String(patient.irVersion),
    opset: listed(opsets) || "none",
    ...(producer ? { "written by": plain(`${plain(producer)} ${plain(version)}`.trim(), 60) } : {}),
  };
}

// Opsets, IR version, domains and operators, against the lists of ONNX Runtime that were written when the book was built;
// and files made for one processor or provider. As findings/versions.py and findings/hardware.py have it.

import { attribute, domain, isOp, key, opType, standard } from "./patient.js";
import { amount, count, finding, listed, place, plain } from "./words.js";
import { wayOf } from "./weights.js";

export function* numbers(patient) {
  const { runtime, tables } = patient.catalogue;
  const here = `ONNX Runtime ${runtime.version}`;
  if (patient.irVersion > runtime.newest_ir) {
    const text = `IR version ${patient.irVersion}; ${here} reads up to ${runtime.newest_ir}.`;
    yield finding("ir-too-new", text, place("file", "ir_version"));
  }
  for (const [name, version] of [...patient.opsets].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!tooNew(runtime, name, version)) continue;
    const text = `${name || "ai.onnx"} ${version}; ${here} takes up to ${runtime.newest[name]}.`;
    yield finding("opset-too-new", text, place("file", `opset of ${name || "ai.onnx"}`));
  }
  const { OLDEST_PROMISED, OLDEST_IR_WITH_OPSETS } = tables.versions;
  const opset = patient.opsets.get("") ?? (patient.irVersion < OLDEST_IR_WITH_OPSETS ? 1 : undefined);
  if (opset < OLDEST_PROMISED && [...patient.eachNode()].some(([, , node]) => standard(node))) {
    const text = `Opset ${opset}; ONNX Runtime promises ${OLDEST_PROMISED} and newer. Some operators of older ones are missing.`;
    yield finding("opset-too-old", text, place("file", "opset of ai.onnx"));
  }
}

const tooNew = (runtime, name, version) => Object.hasOwn(runtime.newest, name) && version >= 1 && version > runtime.newest[name];

/** Each node's domain and operator, against the definitions that the runtime itself holds. */
export function* operators(patient) {
  const { runtime, tables } = patient.catalogue;
  if ([...patient.opsets].some(([name, version]) => tooNew(runtime, name, version))) return; // what a newer opset holds is not known
  const missing = new Map(); // domain → places
  const unknown = new Map(); // domain → [place, operator]
  const operator = new Map(); // words → places
  const reasons = new Map(); // operator and opset → why there is none
  const add = (found, name, item) => found.set(name, [...(found.get(name) ?? []), item]);
  for (const [scope, index, node] of patient.eachNode()) {
    const where = domain(node);
    if (patient.functions.has(key(where, opType(node)))) continue;
    let version = scope.version(node);
    if (version === undefined && where === "" && patient.irVersion < tables.versions.OLDEST_IR_WITH_OPSETS) version = 1;
    if (version === undefined) add(missing, where || "ai.onnx", scope.place(index));
    else if (!Object.hasOwn(runtime.newest, where)) add(unknown, where, [scope.place(index), opType(node)]);
    else {
      const what = `${key(where, opType(node))} ${version}`;
      if (!reasons.has(what)) reasons.set(what, whyNone(runtime.operators, where, opType(node), version));
      const reason = reasons.get(what);
      if (reason) add(operator, `${plain(opType(node))}: ${reason}`, scope.place(index));
    }
  }
  for (const [name, places] of missing) {
    const text = `The domain '${plain(name)}', used by ${count(places.length, "node")}, is not in opset_import.`;
    yield finding("opset-missing", text, places);
  }
  for (const [name, items] of unknown) {
    const hint = tables.versions.MICROSOFT[name] ?? "";
    const text = `${count(items.length, "node")} of the domain '${plain(name)}': ${listed(items.map(([, op]) => op))}. ${hint}`;
    yield finding("domain-unknown", text.trimEnd(), items.map(([at]) => at));
  }
  if (operator.size) {
    const rest = operator.size > 3 ? ` And ${operator.size - 3} more.` : "";
    yield finding("operator-unknown", [...operator.keys()].slice(0, 3).join(" ") + rest, [...operator.values()].flat());
  }
}

/** Why the operator is none in this opset; empty where it is one. operators: domain → operator → opsets of its definitions,
 * negative for one that withdrew it. */
function whyNone(operators, where, op, version) {
  const all = operators[where] ?? {};
  if (!Object.keys(all).length) return ""; // of this domain the runtime does not tell what is in it
  const shown = where || "ai.onnx";
  const known = Object.hasOwn(all, op) ? all[op] : [];
  const inForce = known.filter((since) => Math.abs(since) <= version).at(-1);
  if (inForce > 0) return "";
  if (inForce < 0) return `${shown} withdrew it with opset ${-inForce}, and the file has opset ${version}.`;
  if (known.length) return `${shown} has it from opset ${known[0]} on, and the file has opset ${version}.`;
  const elsewhere = Object.keys(operators).find((name) => name !== where && Object.hasOwn(operators[name], op));
  const hint = elsewhere === undefined ? "" : ` The domain ${elsewhere || "ai.onnx"} has one.`;
  return `${shown} never had an operator of this name.${hint}`;
}

export function* clashes(patient) {
  const { TWO_INPUTS } = patient.tables.versions;
  const found = [...patient.eachNode()].filter(
    ([, , node]) =>
      TWO_INPUTS.includes(opType(node)) && !standard(node) && node.input.length < 2 && patient.functions.has(key(domain(node), opType(node))),
  );
  if (!found.length) return;
  const node = found[0][2];
  const text =
    `The function ${plain(node.domain)}::${opType(node)} is called with ${count(node.input.length, "input")}. ` +
    `The optimiser looks for a second one, as the standard ${opType(node)} has it, and the process can end.`;
  yield finding("function-name-clash", text, found.map(([scope, i]) => scope.place(i)));
}

export function* bound(patient) {
  const { BLOCKED, OTHER_LAYOUT, COPIES } = patient.tables.hardware;
  const [blocked, placed] = [[], []];
  for (const [scope, index, node] of patient.eachNode()) {
    const item = [scope.place(index), opType(node)];
    if (node.domain === BLOCKED) blocked.push(item);
    else if (node.domain === OTHER_LAYOUT || isOp(node, COPIES)) placed.push(item);
  }
  const counted = (items) => `${count(items.length, "node")} (${listed(items.map(([, op]) => op))})`;
  if (blocked.length) {
    const text = `${counted(blocked)} keep channels in blocks as wide as the vector registers of the machine that wrote the file.`;
    yield finding("made-for-one-processor", text, blocked.map(([at]) => at));
  }
  if (placed.length) {
    const text = `${counted(placed)} were put in for the providers of the session that wrote the file.`;
    yield finding("made-for-one-provider", text, placed.map(([at]) => at));
  }
}

/** Compiled code, and what it is bound to. */
export function* compiled(patient) {
  const { COMPILED } = patient.tables.hardware;
  const found = new Map(); // what it is bound to → places
  const outside = []; // [place, name of its file]
  for (const [scope, index, node] of patient.eachNode()) {
    if (opType(node) !== COMPILED || node.domain !== "com.microsoft") continue;
    const text = (name) => new TextDecoder().decode(attribute(node, name) ?? new Uint8Array());
    const beside = attribute(node, "main_context", 1) !== 0 && attribute(node, "embed_mode", 1) === 0;
    if (beside && wayOf(text("ep_cache_context")) === "outside") outside.push([scope.place(index), text("ep_cache_context")]);
    const sdk = text("ep_sdk_version");
    const maker = `${plain(text("source")) || "a provider that it does not name"}${sdk ? ` (SDK ${plain(sdk)})` : ""}${storedAt(node, text)}`;
    found.set(maker, [...(found.get(maker) ?? []), scope.place(index)]);
  }
  for (const [maker, places] of [...found].slice(0, patient.tables.hardware.MOST)) {
    yield finding("made-for-one-provider", `${count(places.length, "node")} of compiled code, bound to ${maker}.`, places);
  }
  const more = [...found].slice(patient.tables.hardware.MOST).flatMap(([, places]) => places);
  if (more.length) yield finding("made-for-one-provider", `${count(more.length, "node")} more of compiled code, bound to others.`, more);
  if (outside.length) {
    const text = `It names '${plain(outside[0][1])}' as the file of its compiled code.`;
    yield finding("external-path-outside", text, outside.map(([at]) => at));
  }
}

/** Where the code of a node is, in words. */
function storedAt(node, text) {
  if (attribute(node, "main_context", 1) === 0) return ""; // another node of this provider holds it
  if (attribute(node, "embed_mode", 1) === 0) return `, in the file '${plain(text("ep_cache_context"))}' beside it`;
  return `, ${amount((attribute(node, "ep_cache_context") ?? []).length)} inside the file`;
}

// What differs between two models: nodes, stored tensors, inputs and outputs, and what the file tells of itself.
//
// How nodes are matched: by name; what is left, by its first output; what is left, by operator in the order of the file. So a
// model that was exported again under other names is not told as all new.

import { dtypeName, shapeOf, tensorData } from "../kit/onnx.js";
import { innerGraphs, opType } from "./patient.js";
import { plain } from "./words.js";
import { checksum, sameBytes } from "./weights.js";

const MOST_CHANGES = 12; // of a node that are told
const MOST_SIZES = 8; // of a shape
const MOST_IN_ORDER = 4_000_000; // pairs that are compared when the order decides

/** {header, values, nodes, tensors}, each with what was added, removed and changed. Models as `readModel` gives them. */
export function diff(before, after) {
  return {
    header: changedPairs(headerOf(before), headerOf(after)),
    values: changedPairs(valuesOf(before.graph), valuesOf(after.graph)),
    nodes: diffNodes(nodesOf(before), nodesOf(after)),
    tensors: diffTensors(tensorsOf(before), tensorsOf(after)),
  };
}

/** How many things differ. */
export function differences({ header, values, nodes, tensors }) {
  const lists = [nodes, tensors].flatMap((part) => Object.values(part));
  return header.length + values.length + lists.reduce((sum, list) => sum + list.length, 0);
}

/** What the file tells of itself: name → value as text. */
function headerOf(model) {
  const found = new Map([["IR version", String(model.ir_version ?? 0)]]);
  for (const o of model.opset_import) found.set(`opset ${o.domain || "ai.onnx"}`, String(o.version ?? 0));
  const fields = { "written by": "producer_name", "version of the writer": "producer_version", domain: "domain", "model version": "model_version", description: "doc_string" };
  for (const [name, field] of Object.entries(fields)) if (model[field]) found.set(name, plain(model[field]));
  if (model.graph.name) found.set("name of the graph", plain(model.graph.name));
  for (const entry of model.metadata_props) found.set(`metadata ${plain(entry.key ?? "")}`, plain(entry.value ?? ""));
  for (const f of model.functions) found.set(`function ${plain(`${f.domain ?? ""}::${f.name ?? ""}`)}`, `${f.node.length} nodes`);
  return found;
}

/** Inputs and outputs: name → dtype and shape. */
function valuesOf(graph) {
  const found = new Map();
  const stored = new Set(graph.initializer.map((t) => t.name));
  for (const value of graph.input) if (!stored.has(value.name)) found.set(`input ${plain(value.name ?? "")}`, typeText(value));
  for (const value of graph.output) found.set(`output ${plain(value.name ?? "")}`, typeText(value));
  return found;
}

function typeText(value) {
  const tensor = value.type?.tensor_type;
  if (!tensor) return "no tensor";
  const shape = shapeOf(value);
  return `${dtypeName(tensor.elem_type ?? 0)}${shape ? `[${sizes(shape.map((size) => plain(size)))}]` : ""}`;
}

/** [{what, before, after}] of what differs between two maps of texts; null where one lacks it. */
function changedPairs(before, after) {
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((what) => before.get(what) !== after.get(what))
    .map((what) => ({ what, before: before.get(what) ?? null, after: after.get(what) ?? null }));
}

/** [{graph, node, index}] of all graphs. graph: empty for the main one. */
function nodesOf(model) {
  const found = [];
  const waiting = [["", model.graph], ...model.functions.map((f) => [`function ${f.domain ?? ""}::${f.name ?? ""}`, f])].reverse();
  while (waiting.length) {
    const [graph, body] = waiting.pop();
    body.node.forEach((node, index) => {
      found.push({ graph, node, index });
      for (const [name, inner] of innerGraphs(node)) waiting.push([`${graph}/${node.name || node.output[0]}.${name}`, inner]);
    });
  }
  return found;
}

const shown = ({ graph, node, index }) => ({ op: plain(opType(node)), name: plain(node.name || node.output[0] || `#${index}`), graph: plain(graph) });

function diffNodes(before, after) {
  const pairs = [];
  const byName = ({ graph, node }) => node.name && JSON.stringify([graph, opType(node), node.name]);
  const byOutput = ({ graph, node }) => node.output[0] && JSON.stringify([graph, node.output[0]]);
  let [left, right] = matched(before, after, byName, pairs);
  [left, right] = matched(left, right, byOutput, pairs);
  [left, right] = inOrder(left, right, ({ graph, node }) => `${graph} ${opType(node)}`, pairs);
  const changed = pairs.map(([a, b]) => ({ ...shown(b), changes: nodeChanges(a.node, b.node) })).filter(({ changes }) => changes.length);
  return { added: right.map(shown), removed: left.map(shown), changed };
}

/** Adds the pairs of those that have the same key, and it alone; returns what is left of both. */
function matched(before, after, keyOf, pairs) {
  const once = (items) => {
    const found = new Map();
    for (const item of items) if (keyOf(item)) found.set(keyOf(item), found.has(keyOf(item)) ? null : item);
    return found;
  };
  const [a, b] = [once(before), once(after)];
  const used = new Set();
  for (const [key, item] of a) {
    if (!item || !b.get(key)) continue;
    pairs.push([item, b.get(key)]);
    used.add(item).add(b.get(key));
  }
  return [before.filter((item) => !used.has(item)), after.filter((item) => !used.has(item))];
}

/** The same for the longest common row of both: what is left are those that no row of equals holds. */
function inOrder(before, after, keyOf, pairs) {
  if (before.length * after.length > MOST_IN_ORDER) return [before, after];
  const [a, b] = [before.map(keyOf), after.map(keyOf)];
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width); // from here to the ends of both
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const skip = Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : skip;
    }
  }
  const [left, right] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) pairs.push([before[i++], after[j++]]);
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) left.push(before[i++]);
    else right.push(after[j++]);
  }
  return [[...left, ...before.slice(i)], [...right, ...after.slice(j)]];
}

/** What differs between two nodes, in words. */
function nodeChanges(a, b) {
  const found = [];
  const say = (what, x, y) => x !== y && found.push(`${what}: ${plain(x) || "none"} → ${plain(y) || "none"}`);
  say("name", a.name ?? "", b.name ?? "");
  say("operator", opType(a), opType(b));
  say("domain", a.domain ?? "", b.domain ?? "");
  for (const [what, of] of [["input", "input"], ["output", "output"]]) {
    for (let i = 0; i < Math.max(a[of].length, b[of].length); i += 1) say(`${what} ${i + 1}`, a[of][i] ?? "", b[of][i] ?? "");
  }
  const [x, y] = [a, b].map((node) => new Map(node.attribute.map((one) => [one.name ?? "", one])));
  for (const name of new Set([...x.keys(), ...y.keys()])) {
    if (same(x.get(name), y.get(name))) continue;
    const [p, q] = [x, y].map((all) => (all.has(name) ? attributeText(all.get(name)) : "none"));
    found.push(`attribute ${plain(name)}: ${p === q ? "other values" : `${p} → ${q}`}`);
  }
  const more = found.length - MOST_CHANGES;
  return more > 0 ? [...found.slice(0, MOST_CHANGES), `and ${more} more`] : found;
}

/** Whether two parts of models hold the same. Graphs in attributes count as the same: their nodes are compared by themselves. */
function same(a, b) {
  if (Object.is(a, b)) return true;
  if (a instanceof Uint8Array && b instanceof Uint8Array) return sameBytes(a, b);
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const fields = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...fields].every((name) => name === "g" || name === "graphs" || same(a[name], b[name]));
}

function attributeText(a) {
  if (a.ref_attr_name) return `the function's ${plain(a.ref_attr_name)}`;
  if (a.t) return kindOf(a.t);
  if (a.s) return plain(new TextDecoder().decode(a.s));
  if (a.g || a.graphs.length) return "a graph";
  const round = (x) => (typeof x === "number" ? Number(x.toPrecision(7)) : x);
  const list = [a.ints, a.floats].find((values) => values.length);
  if (list) return `[${sizes(list.map(round))}]`;
  return a.strings.length ? `${a.strings.length} texts` : String(round(a.f ?? a.i ?? ""));
}

/** Name → tensor, of the initializers of the main graph and of graphs in nodes. */
function tensorsOf(model) {
  const found = new Map(model.graph.initializer.map((t) => [t.name ?? "", t]));
  for (const { graph, node } of nodesOf(model)) {
    for (const [name, inner] of innerGraphs(node)) {
      for (const t of inner.initializer) found.set(`${graph}/${node.name || node.output[0]}.${name}/${t.name ?? ""}`, t);
    }
  }
  return found;
}

const sizes = (dims) => dims.slice(0, MOST_SIZES).join(", ") + (dims.length > MOST_SIZES ? ", …" : "");
const kindOf = (t) => `${dtypeName(t.data_type ?? 0)}[${sizes(t.dims)}]`;
/** The same for tensors of one kind with the same raw data; empty where there is none. */
const contentKey = (t) => (t.raw_data ? `${kindOf(t)} ${checksum(t.raw_data)}` : "");

function diffTensors(before, after) {
  const [added, removed, changed, renamed] = [[], [], [], []];
  for (const [name, b] of after) {
    const a = before.get(name);
    const change = a && tensorChange(a, b);
    if (!a) added.push({ name, tensor: b });
    else if (change) changed.push({ name: plain(name), kind: kindOf(b), change });
  }
  for (const [name, a] of before) if (!after.has(name)) removed.push({ name, tensor: a });
  const news = new Map(added.map((one) => [contentKey(one.tensor), one]));
  const moved = new Set();
  for (const one of removed) {
    const other = contentKey(one.tensor) && news.get(contentKey(one.tensor));
    if (!other || moved.has(other) || !sameBytes(one.tensor.raw_data, other.tensor.raw_data)) continue;
    renamed.push({ name: plain(one.name), kind: kindOf(one.tensor), change: `now ${plain(other.name)}` });
    moved.add(one).add(other);
  }
  const short = ({ name, tensor }) => ({ name: plain(name), kind: kindOf(tensor) });
  const rest = (items) => items.filter((item) => !moved.has(item)).map(short);
  return { added: rest(added), removed: rest(removed), renamed, changed };
}

/** How one tensor differs from the other, in words; empty where they hold the same. */
function tensorChange(a, b) {
  if (kindOf(a) !== kindOf(b)) return `was ${kindOf(a)}`;
  if (a.raw_data && b.raw_data && sameBytes(a.raw_data, b.raw_data)) return "";
  if (a.data_location === 1 || b.data_location === 1) return same(a.external_data, b.external_data) ? "" : "its values lie elsewhere";
  let values;
  try {
    values = [tensorData(a), tensorData(b)];
  } catch {
    return same(a, b) ? "" : "other data";
  }
  const [x, y] = values;
  let [count, largest] = [0, 0];
  for (let i = 0; i < x.length; i += 1) {
    if (Object.is(x[i], y[i])) continue;
    count += 1;
    const distance = Math.abs(Number(y[i]) - Number(x[i]));
    if (distance > largest) largest = distance;
  }
  if (!count) return "";
  const by = largest ? `, by ${Number(largest.toPrecision(3))} at most` : "";
  return `${count.toLocaleString("en")} of ${x.length.toLocaleString("en")} values differ${by}`;
}

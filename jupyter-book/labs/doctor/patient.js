// The model as the checks see it: its graphs, with who writes and who reads each tensor. As course_utils/diagnosis/patient.py
// and parts.py have it, for a model of which only the bytes of its file are known.

import { tensorData } from "../kit/onnx.js";
import { place, plain } from "./words.js";

const STANDARD = new Set(["", "ai.onnx"]);
const EXTERNAL = 1;
const MOST_GRAPHS = 200_000;
// Types of attributes → the field with the value, and what stands for a value that is not there.
const FIELDS = { 1: ["f", 0], 2: ["i", 0], 3: ["s", null], 4: ["t", null], 5: ["g", null], 6: ["floats", []], 7: ["ints", []], 8: ["strings", []] };

export const standard = (node) => STANDARD.has(node.domain ?? "");
export const domain = (node) => (standard(node) ? "" : node.domain);
export const opType = (node) => node.op_type ?? "";
export const key = (where, name) => `${where}::${name}`;
/** Whether a node is one of these standard operators. ops: an array or a Set. */
export const isOp = (node, ops) => standard(node) && (ops.has ? ops.has(opType(node)) : ops.includes(opType(node)));
export const number = (value) => Number(value ?? 0);
export const isExternal = (tensor) => tensor.data_location === EXTERNAL;
export const elements = (dims) => (dims.some((d) => Number(d) === 0) ? 0 : dims.reduce((product, d) => product * Number(d), 1));

/** The value of a node's attribute; `otherwise` where it is not there, or refers to a function's attribute. */
export function attribute(node, name, otherwise) {
  const found = node.attribute.find((a) => a.name === name && !a.ref_attr_name);
  const [field, empty] = FIELDS[found?.type] ?? [];
  if (!field) return otherwise;
  const value = found[field] ?? empty;
  if (field === "ints") return value.map(Number);
  return field === "i" ? Number(value) : value;
}

export function* innerGraphs(node) {
  for (const a of node.attribute) {
    if (a.g) yield [a.name, a.g];
    for (const graph of a.graphs) yield [a.name, graph];
  }
}

const made = new WeakMap(); // Constant with a number as attribute → its tensor

/** The tensor that a Constant gives; null for any other node. */
function constant(node) {
  if (!isOp(node, ["Constant"]) || node.attribute.length !== 1) return null;
  const [a] = node.attribute;
  if (a.ref_attr_name) return null;
  if (a.name === "value" && a.t) return a.t;
  const kinds = {
    value_float: () => ({ data_type: 1, dims: [], float_data: [a.f ?? 0] }),
    value_int: () => ({ data_type: 7, dims: [], int64_data: [a.i ?? 0] }),
    value_floats: () => ({ data_type: 1, dims: [a.floats.length], float_data: a.floats }),
    value_ints: () => ({ data_type: 7, dims: [a.ints.length], int64_data: a.ints }),
  };
  if (!Object.hasOwn(kinds, a.name ?? "")) return null;
  if (!made.has(node)) made.set(node, kinds[a.name]());
  return made.get(node);
}

/** One graph: the main one, one inside a node, or the body of a function. label: where it is. outer: the graph around it. */
export class Scope {
  constructor(body, label, outer, opsets, isFunction = false) {
    Object.assign(this, { body, label, outer, opsets, isFunction });
    const named = (values) => (isFunction ? values : values.map((v) => v.name ?? ""));
    this.nodes = body.node;
    this.initializers = new Map(isFunction ? [] : body.initializer.map((t) => [t.name ?? "", t]));
    this.sparse = new Set(isFunction ? [] : body.sparse_initializer.map((t) => t.values?.name ?? ""));
    this.inputs = named(body.input);
    this.inputNames = new Set(this.inputs);
    this.outputs = named(body.output);
    this.outputNames = new Set(this.outputs);
    this.producer = new Map();
    this.readers = new Map();
    this.nodes.forEach((node, i) => {
      for (const name of node.output) if (name) this.producer.set(name, i);
      for (const name of new Set(node.input)) {
        if (!this.readers.has(name)) this.readers.set(name, []);
        this.readers.get(name).push(i);
      }
    });
    this.innerReads = new Set(); // names that graphs inside this one's nodes read
    this.children = new Map(); // index of a node → the graphs inside it
  }

  place(index) {
    const node = this.nodes[index];
    return place("node", node.name || node.output[0] || opType(node), index, this.label);
  }

  /** The opset version that counts for a node; undefined where its domain is not imported. */
  version(node) {
    return this.opsets.get(domain(node));
  }

  isRead(name) {
    return this.readers.has(name) || this.innerReads.has(name) || this.outputNames.has(name);
  }

  has(name) {
    return this.producer.has(name) || this.initializers.has(name) || this.sparse.has(name) || this.inputNames.has(name);
  }

  /** Names that this graph, or a graph in its nodes, takes from outside. */
  free() {
    this.taken ??= [...new Set([...this.readers.keys(), ...this.outputs, ...this.innerReads])].filter((name) => !this.has(name));
    return this.taken;
  }
}

const opsetsOf = (imports) => imports.map((o) => [STANDARD.has(o.domain ?? "") ? "" : o.domain, number(o.version)]);

/** What is examined. model: of `readModel`. size: bytes of its file. catalogue: what `models/doctor.py` wrote. */
export class Patient {
  constructor(model, size, catalogue) {
    Object.assign(this, { model, size, catalogue, tables: catalogue.tables });
    this.notExamined = [];
    this.graph = model.graph;
    this.irVersion = number(model.ir_version);
    this.opsets = new Map(opsetsOf(model.opset_import));
    this.functions = new Map(model.functions.map((f) => [key(domain(f), f.name ?? ""), f]));
    this.scopes = this.#scopes();
    this.main = this.scopes[0];
    this.weightsBytes = 0;
    for (const [, tensor] of this.eachTensor()) this.weightsBytes += this.expectedBytes(tensor) ?? 0;
  }

  /** The main graph first, then the graphs in its nodes, then the functions with theirs. */
  #scopes() {
    const found = [];
    const roots = [new Scope(this.graph, "", null, this.opsets)];
    for (const f of this.model.functions) {
      const opsets = new Map([...this.opsets, ...opsetsOf(f.opset_import)]);
      roots.push(new Scope(f, `function ${plain(f.domain ?? "")}::${plain(f.name ?? "")}`, null, opsets, true));
    }
    const waiting = roots.reverse();
    while (waiting.length && found.length < MOST_GRAPHS) {
      const scope = waiting.pop();
      found.push(scope);
      scope.nodes.forEach((node, i) => {
        for (const [name, graph] of innerGraphs(node)) {
          const label = `${scope.label}${scope.label ? " / " : ""}${opType(node)} ${plain(node.name || i)} / ${plain(name ?? "")}`;
          const child = new Scope(graph, label, scope, scope.opsets);
          if (!scope.children.has(i)) scope.children.set(i, []);
          scope.children.get(i).push(child);
          waiting.push(child);
        }
      });
    }
    for (const scope of [...found].reverse()) {
      // Inner graphs first, so that their reads reach every graph around them.
      if (scope.outer) for (const name of scope.free()) scope.outer.innerReads.add(name);
    }
    return found;
  }

  *eachNode() {
    for (const scope of this.scopes) for (const [index, node] of scope.nodes.entries()) yield [scope, index, node];
  }

  /** Every dense tensor that is stored: initializers, and tensors in attributes. */
  *eachTensor() {
    for (const scope of this.scopes) {
      for (const tensor of scope.initializers.values()) yield [place("tensor", tensor.name ?? "", null, scope.label), tensor];
      for (const [index, node] of scope.nodes.entries()) {
        for (const a of node.attribute) for (const tensor of a.t ? [a.t, ...a.tensors] : a.tensors) yield [scope.place(index), tensor];
      }
    }
  }

  dtypeName(type) {
    return this.tables.dtypes[type ?? 0]?.name ?? `type ${type}`;
  }

  /** Bytes of a tensor's data by its dtype and shape; null for text, unknown dtypes, and impossible sizes. */
  expectedBytes(tensor) {
    const bits = this.tables.dtypes[tensor.data_type ?? 0]?.bits;
    if (!bits || tensor.dims.some((d) => d < 0)) return null;
    return Math.ceil((elements(tensor.dims) * bits) / 8);
  }

  /** What a caller feeds: the graph's inputs without its initializers. */
  inputValues() {
    return this.graph.input.filter((v) => !this.main.initializers.has(v.name ?? "") && !this.main.sparse.has(v.name ?? ""));
  }

  /** The tensor that a name always stands for: an initializer or a Constant, also through Identity or from outside. */
  stored(scope, name) {
    let here = scope;
    let wanted = name;
    for (let step = 0; step < 16 && here && wanted; step += 1) {
      if (here.initializers.has(wanted)) {
        // From IR version 4 on a caller may feed another value for one that is an input as well.
        const fed = here.inputNames.has(wanted) && this.irVersion >= 4;
        return fed ? null : here.initializers.get(wanted);
      }
      if (here.producer.has(wanted)) {
        const node = here.nodes[here.producer.get(wanted)];
        if (!isOp(node, ["Identity"]) || !node.input.length) return constant(node);
        [wanted] = node.input;
      } else if (here.inputNames.has(wanted)) {
        return null;
      } else {
        here = here.outer;
      }
    }
    return null;
  }

  /** The elements of a constant as {data, dims, type}; null where it is none, or cannot be read. */
  value(scope, name) {
    const tensor = this.stored(scope, name);
    return tensor && this.array(tensor);
  }

  /** The elements of a tensor as {data, dims, type}; null where they are not in the file, or are damaged. */
  array(tensor, largest = Infinity) {
    if (isExternal(tensor) || (this.expectedBytes(tensor) ?? 0) > largest) return null;
    try {
      return { data: tensorData(tensor), dims: tensor.dims.map(Number), type: tensor.data_type };
    } catch {
      return null; // what is wrong with its size is another finding
    }
  }
}

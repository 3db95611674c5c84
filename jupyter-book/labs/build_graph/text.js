// ONNX's text form, read into the object that `writeModel` takes. The grammar is that of onnx.parser, without what holds
// graphs: https://onnx.ai/onnx/repo-docs/Syntax.html

import { ATTRIBUTE_TYPES, DATA_TYPES } from "../kit/onnx.js";

const LONGEST = 20000; // characters
const TOKEN = /(?<space>(?:\s|#[^\n]*)+)|(?<text>"(?:[^"\\]|\\[^])*")|(?<number>-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|(?<name>[A-Za-z_]\w*)|(?<sign>=>|[<>(){}[\],:=.?@])/y;
const TYPES = Object.fromEntries(Object.entries(DATA_TYPES).map(([name, number]) => [name.toLowerCase(), number]));
const CONTAINERS = ["seq", "map", "optional", "sparse_tensor"];
// How the values of a tensor are written into a file: by the field of TensorProto.
const FIELDS = { float: "float_data", double: "double_data", int64: "int64_data", string: "string_data", int32: "int32_data", int16: "int32_data", int8: "int32_data", uint16: "int32_data", uint8: "int32_data", bool: "int32_data", uint32: "uint64_data", uint64: "uint64_data" };
const HEADER = { ir_version: "number", opset_import: "versions", producer_name: "text", producer_version: "text", domain: "text", model_version: "number", doc_string: "text", metadata_props: "texts" };
const encode = (text) => new TextEncoder().encode(text);

/** A model. Throws an Error with one sentence, and `at`, the place in the text, where it is no text of a model. */
export function parseModel(text) {
  if (text.length > LONGEST) throw new Error(`The text has ${text.length} characters; ${LONGEST} is the most here.`);
  const read = new Reader(text);
  const model = { opset_import: [], metadata_props: [], training_info: [], functions: [], ...(read.take("<") ? header(read) : {}) };
  model.graph = graph(read);
  if (read.kind !== "end") read.fail("Here the text should end: functions are not read in this page");
  return model;
}

class Reader {
  constructor(text) {
    Object.assign(this, { text, end: 0 });
    this.next();
  }

  /** Go on to the next token: `kind` is "text", "number", "name", "sign" or "end"; `value` how it is written. */
  next() {
    do {
      [this.at, TOKEN.lastIndex] = [this.end, this.end];
      const found = TOKEN.exec(this.text);
      if (!found && this.at < this.text.length) this.fail(`${JSON.stringify(this.text[this.at])} is no part of ONNX's text form`);
      [this.kind, this.value] = found ? Object.entries(found.groups).find(([, value]) => value !== undefined) : ["end", ""];
      this.end = this.at + this.value.length;
    } while (this.kind === "space");
  }

  fail(sentence) {
    const before = this.text.slice(0, this.at).split("\n");
    throw Object.assign(new Error(`Line ${before.length}, column ${before.at(-1).length + 1}: ${sentence}.`), { at: this.at });
  }

  is(sign) {
    return this.kind === "sign" && this.value === sign;
  }

  take(sign) {
    const here = this.is(sign);
    if (here) this.next();
    return here;
  }

  need(sign) {
    if (!this.take(sign)) this.fail(`${sign} is expected${this.kind === "end" ? ", and the text ends" : ` in place of ${this.value}`}`);
  }

  /** A value of this kind, such as "a name". */
  the(kind, called) {
    if (this.kind !== kind) this.fail(`${called} is expected${this.kind === "end" ? ", and the text ends" : ` in place of ${this.value}`}`);
    const { value } = this;
    this.next();
    return kind === "text" ? value.slice(1, -1).replace(/\\([^])/g, "$1") : value;
  }

  name(called = "a name") {
    return this.kind === "text" ? this.the("text", called) : this.the("name", called);
  }

  whole(called = "a whole number") {
    if (!/^-?\d+$/.test(this.value)) this.fail(`${called} is expected in place of ${this.value || "the end"}`);
    return integer(this.the("number", called), this);
  }

  /** Things with commas between, up to the sign that closes. filled: at least one. */
  list(closing, one, filled = false) {
    const found = [];
    if (!filled && this.take(closing)) return found;
    do found.push(one());
    while (this.take(","));
    this.need(closing);
    return found;
  }
}

function integer(text, read) {
  const value = BigInt(text);
  if (BigInt.asIntN(64, value) !== value) read.fail(`${text} does not fit into 64 bits`);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function header(read) {
  const found = {};
  const pair = (value) => () => {
    const key = read.the("text", "a text in quotes");
    read.need(":");
    return [key, value()];
  };
  const field = () => {
    const key = read.value;
    if (!Object.hasOwn(HEADER, key)) read.fail(`A model has no field ${key || "here"} (it has ${Object.keys(HEADER).join(", ")})`);
    read.next();
    read.need(":");
    if (HEADER[key] === "number") found[key] = read.whole();
    else if (HEADER[key] === "text") found[key] = read.the("text", "a text in quotes");
    else {
      read.need("[");
      const versions = HEADER[key] === "versions";
      const pairs = read.list("]", pair(() => (versions ? read.whole() : read.the("text", "a text in quotes"))));
      found[key] = pairs.map(([first, second]) => (versions ? { domain: first, version: second } : { key: first, value: second }));
    }
  };
  read.list(">", field, true);
  return found;
}

function graph(read) {
  const made = { name: read.name("the graph's name"), node: [], initializer: [], sparse_initializer: [], value_info: [], quantization_annotation: [], metadata_props: [] };
  read.need("(");
  made.input = read.list(")", () => value(read, made.initializer));
  read.need("=>");
  read.need("(");
  made.output = read.list(")", () => value(read));
  if (read.take("<"))
    read.list(">", () => {
      const stored = made.initializer.length;
      const info = value(read, made.initializer);
      if (made.initializer.length === stored) made.value_info.push(info);
    });
  read.need("{");
  while (!read.take("}")) made.node.push(node(read));
  return made;
}

/** An input, an output or a tensor: its type if it has one, its name, and `= {…}` where it has values, which go to `stored`. */
function value(read, stored) {
  const typed = read.kind === "name" && Object.hasOwn(TYPES, read.value);
  if (CONTAINERS.includes(read.value)) read.fail(`${read.value}(…) is not read in this page, only tensors`);
  const type = typed ? tensorType(read) : null;
  const name = read.name("a name, or a type such as float[2, 3] and a name,");
  if (stored && type && read.take("=")) stored.push(tensor(read, type, name));
  if (!type) return { name };
  return { name, type: { tensor_type: { elem_type: type.number, ...(type.dims && { shape: { dim: type.dims } }) } } };
}

/** `float[N, 3]`: dims are objects of the shape, none where it says `[]`, any number of dimensions. */
function tensorType(read) {
  const kind = read.the("name", "a type");
  const type = { kind, number: TYPES[kind], dims: [] };
  if (!read.take("[")) return type;
  const size = () => {
    if (read.take("?")) return {};
    return read.kind === "name" || read.kind === "text" ? { dim_param: read.name() } : { dim_value: read.whole("a size, a name or ?") };
  };
  type.dims = read.is("]") ? (read.next(), null) : read.list("]", size);
  return type;
}

function tensor(read, { kind, number, dims }, name) {
  if (!FIELDS[kind]) read.fail(`Values of ${kind} are not read in this page`);
  if (!dims || dims.some((dim) => dim.dim_value === undefined)) read.fail("A tensor with values needs a number for each size");
  const one = { float: () => Math.fround(float(read)), double: () => float(read), string: () => encode(read.the("text", "a text in quotes")) }[kind] ?? (() => read.whole());
  const sizes = dims.map((dim) => dim.dim_value);
  const start = read.at;
  read.need("{");
  const values = read.list("}", one);
  const wanted = sizes.reduce((product, size) => product * size, 1);
  if (values.length !== wanted) {
    read.at = start;
    read.fail(`${name ? `'${name}'` : "This tensor"} is [${sizes}], which takes ${wanted} values; here are ${values.length}`);
  }
  return { name, dims: sizes, data_type: number, [FIELDS[kind]]: values };
}

function float(read) {
  const special = { inf: Infinity, nan: NaN }[read.value];
  if (special === undefined) return Number(read.the("number", "a number"));
  read.next();
  return special;
}

function node(read) {
  const made = { input: [], output: [], attribute: [], metadata_props: [] };
  if (read.take("[")) {
    made.name = read.name("the node's name");
    read.need("]");
  }
  do made.output.push(read.name("the name of what a node writes"));
  while (read.take(","));
  read.need("=");
  const parts = [read.the("name", "an operator")];
  while (read.take(".")) parts.push(read.the("name", "an operator"));
  made.op_type = parts.pop();
  made.domain = parts.join(".");
  const attributes = () => {
    if (read.take("<")) made.attribute.push(...read.list(">", () => attribute(read), true));
  };
  attributes();
  read.need("(");
  const input = () => (read.is(",") || read.is(")") ? null : read.name("the name of what a node reads"));
  const inputs = read.list(")", input);
  if (inputs.at(-1) === null) inputs.pop(); // a comma at the end
  made.input = inputs.map((name) => name ?? "");
  attributes();
  return made;
}

function attribute(read) {
  const name = read.name("the name of an attribute");
  const said = read.take(":") ? read.the("name", "the type of an attribute").toUpperCase() : "";
  if (said && !["INT", "FLOAT", "STRING", "TENSOR", "INTS", "FLOATS", "STRINGS"].includes(said)) read.fail(`Attributes of the type ${said.toLowerCase()} are not read in this page`);
  read.need("=");
  if (read.is("@")) read.fail("An attribute that refers to another one stands only in a function, and is not read in this page");
  const start = read.at;
  const list = read.take("[");
  const items = list ? read.list("]", () => item(read)) : [item(read)];
  const kinds = new Set(items.map(([kind]) => kind));
  let kind = kinds.size === 1 ? [...kinds][0] : "";
  const wanted = said.replace(/S$/, "");
  if (wanted === "FLOAT" && kind === "INT") kind = "FLOAT";
  if (list && !items.length) kind = wanted;
  read.at = kind ? read.at : start;
  if (!kind) read.fail(items.length ? "The values of a list have one type" : "An empty list needs its type, such as axes: ints = []");
  if (said && said !== (list ? `${kind}S` : kind)) {
    read.at = start;
    read.fail(`'${name}' is said to be ${said.toLowerCase()}, and its value is ${(list ? `${kind}s` : kind).toLowerCase()}`);
  }
  const field = { INT: "i", FLOAT: "f", STRING: "s", TENSOR: "t" }[kind];
  const values = items.map(([, given]) => (kind === "FLOAT" ? Math.fround(Number(given)) : given));
  const made = { name, type: ATTRIBUTE_TYPES[list ? `${kind}S` : kind], floats: [], ints: [], strings: [], tensors: [], graphs: [], sparse_tensors: [], type_protos: [] };
  return { ...made, ...(list ? { [`${kind.toLowerCase()}s`]: values } : { [field]: values[0] }) };
}

/** The kind of a value and the value. */
function item(read) {
  if (read.kind === "text") return ["STRING", encode(read.the("text", "a text"))];
  if (read.kind === "number") return /^-?\d+$/.test(read.value) ? ["INT", read.whole()] : ["FLOAT", float(read)];
  if (read.value === "inf" || read.value === "nan") return ["FLOAT", float(read)];
  if (read.kind === "name" && Object.hasOwn(TYPES, read.value)) {
    const type = tensorType(read);
    return ["TENSOR", tensor(read, type, read.is("{") ? "" : read.name())];
  }
  return read.fail(read.kind === "name" ? "A graph as a value is not read in this page" : "A value is expected: a number, a text in quotes, a tensor or a list");
}

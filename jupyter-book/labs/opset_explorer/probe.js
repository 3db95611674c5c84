// A model of one node, of which ONNX Runtime tells whether it has a kernel for it. What is fed is never said: only types count.

import { ATTRIBUTE_TYPES, DATA_TYPES } from "../kit/onnx.js";

const IR_VERSION = 10;
const FIRST = ["float", "int64", "bool", "string"]; // for the other inputs: the first of these that is allowed
const LACKS = /^(bfloat16|complex|float8|float4|u?int2)/; // types without tensors in JavaScript
const WRAP = "made_of_float"; // how the names begin of the nodes around the one that is asked about
const encode = (text) => new TextEncoder().encode(text);
const TYPES = Object.fromEntries(Object.entries(DATA_TYPES).map(([name, number]) => [name.toLowerCase(), number]));

/** The types of tensors that its first input may have, or, where it reads nothing, its first output. */
export function typesOf({ inputs, outputs, types }) {
  const [, , letter] = inputs[0] ?? outputs[0] ?? [];
  return types[letter] ?? [];
}

/**
 * A model (for `writeModel`) with one node of this edition; null where none can be made without a graph or a sequence. A type that
 * JavaScript cannot give to ONNX Runtime is made of float inside, and turned into float again.
 */
export function probe(operator, edition, type) {
  const { inputs, outputs, types, needs, opset } = edition;
  if (!needs) return null;
  const [, , first] = inputs[0] ?? outputs[0];
  const chosen = (letter) => (letter === first ? type : (FIRST.find((one) => types[letter].includes(one)) ?? types[letter][0]));
  const wanted = inputs.filter(([, option]) => option !== 1);
  const made = outputs.filter(([, option], at) => at === 0 || option === 0);
  if ([...wanted, ...made].some(([, , letter]) => !types[letter].length)) return null;
  const node = { op_type: operator, input: wanted.map(([name]) => `in_${name}`), output: made.map(([name]) => `out_${name}`), attribute: needs.map(attribute) };
  const nodes = [node];
  const cast = (from, to, kind) => ({ op_type: "Cast", name: `${WRAP}_${to}`, input: [from], output: [to], attribute: [attribute(["to", opset < 6 ? "STRING" : "INT", opset < 6 ? kind.toUpperCase() : TYPES[kind]])] });
  const read = wanted.map(([name, , letter]) => {
    const kind = chosen(letter);
    if (!LACKS.test(kind)) return input(`in_${name}`, kind);
    nodes.unshift(cast(`given_${name}`, `in_${name}`, kind));
    return input(`given_${name}`, "float");
  });
  const written = made.map(([name, , letter]) => {
    if (!LACKS.test(chosen(letter))) return { name: `out_${name}` }; // ONNX Runtime finds out its type
    nodes.push(cast(`out_${name}`, `back_${name}`, "float"));
    return { name: `back_${name}` };
  });
  return {
    ir_version: IR_VERSION,
    opset_import: [{ domain: "", version: opset }],
    graph: { name: "probe", node: nodes, input: read, output: written, initializer: [] },
  };
}

const input = (name, kind) => ({ name, type: { tensor_type: { elem_type: TYPES[kind] } } });

function attribute([name, kind, value]) {
  const field = { INT: "i", FLOAT: "f", STRING: "s" }[kind] ?? kind.toLowerCase();
  return { name, type: ATTRIBUTE_TYPES[kind], [field]: kind === "STRING" ? encode(value) : value };
}

/** Of which types there is a kernel. reasons: type → what `reason` gives, empty for a kernel. `line` tells it; `words`: quotations. */
export function told(reasons) {
  const kinds = { "a kernel": [], "no kernel": [], "no answer": [] };
  for (const [type, why] of reasons) kinds[why === "" ? "a kernel" : why === "no kernel" ? why : "no answer"].push(type);
  const which = (kind, types) => (types.length < reasons.size ? types.join(", ") : `${kind === "a kernel" ? "every" : "any"} type of this definition`);
  const parts = Object.entries(kinds).filter(([, types]) => types.length);
  const words = [...new Set(reasons.values())].filter((why) => why.startsWith("“"));
  return { line: parts.map(([kind, types]) => `${kind} for ${which(kind, types)}`).join("; "), words };
}

/** What ONNX Runtime's refusal means: "no kernel" for this type, "no way to ask", or its own words in quotes. */
export function reason(text) {
  if (text.includes(`for Cast(`) && text.includes(`'${WRAP}_`)) return "no way to ask";
  return /Could not find an implementation|NOT_IMPLEMENTED/.test(text) ? "no kernel" : `“${text}”`;
}

// Operators and their versions, as `onnx.defs` has them, and which of them this page's ONNX Runtime has a kernel for.

import { writeModel } from "../kit/onnx.js";
import { bytes, open } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, field, h, status, table, words } from "../kit/ui.js";
import { line } from "./line.js";
import { probe, reason, told, typesOf } from "./probe.js";

const AS_WRITTEN = { sessionOptions: { graphOptimizationLevel: "disabled" } }; // no node is put in the place of another

export async function mount(root, lab) {
  const facts = JSON.parse(new TextDecoder().decode(await bytes(new URL("opsets.json", lab.base).href)));
  const all = new Map(Object.entries(facts.operators));
  const given = read(lab.name);
  const opset = Number(given.opset);
  const state = {
    operator: all.has(given.operator) ? given.operator : "Softmax",
    find: given.find ?? "",
    opset: Number.isInteger(opset) && opset >= 1 && opset <= facts.newest ? String(opset) : "",
  };
  const answers = new Map(); // operator → what `found` gives, one for each edition
  let asked = false;
  let turn = 0;
  const find = h("input", { type: "search", value: state.find, autocapitalize: "off", spellcheck: "false", oninput: () => change({ find: find.value }) });
  const opsets = h("select", { onchange: () => change({ opset: opsets.value }) }, h("option", { value: "" }, "any"), Array.from({ length: facts.newest }, (_, i) => h("option", { value: i + 1, selected: String(i + 1) === state.opset }, `${i + 1}`)));
  const count = h("p", { class: "opset-count", "aria-live": "polite" });
  const list = h("select", { class: "opset-list", size: 9, "aria-label": "Operators", onchange: () => change({ operator: list.value }) });
  const shown = h("div", {});
  const said = status();
  const ask = button("Ask this page's runtime", () => ((asked = true), tell()));
  root.append(
    h("div", { class: "opset-sides" }, [
      h("div", {}, field("Find a name, an input or an attribute", find), field("New, changed or withdrawn with opset", opsets), count, list),
      shown,
    ]),
    ask,
    said.element,
  );
  offer();
  show();

  function change(part) {
    Object.assign(state, part);
    write(lab.name, state);
    if (!("operator" in part)) offer();
    show();
    if (asked) tell();
  }

  /** The operators that are found, in the list. */
  function offer() {
    const names = [...all].filter(([name, editions]) => matches(name, editions, state)).map(([name]) => name);
    count.textContent = names.length === 1 ? "1 operator" : `${names.length} of ${all.size} operators`;
    list.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === state.operator }, name)));
    if (names.length && !names.includes(state.operator)) state.operator = list.value = names[0];
  }

  function show() {
    turn++;
    const editions = all.get(state.operator);
    const lines = answers.get(state.operator);
    const rows = editions.map((one, at) => [one.opset, one.what, lines ? cell(lines[at]) : "not asked yet", one.inputs.map(([name, option]) => name + ["", "?", "…"][option]).join(", "), one.attributes.map(([name, value]) => (value ? `${name} = ${value}` : name)).join(", ")]);
    const address = `https://onnx.ai/onnx/operators/onnx__${state.operator}.html`;
    shown.replaceChildren(
      h("p", { class: "opset-name" }, h("b", {}, state.operator), " ", h("a", { href: address }, "its documentation")),
      line(editions, facts.newest),
      table(["opset", "what is different", "this page's runtime", "inputs", "attributes"], rows.reverse()),
    );
  }

  async function tell() {
    const mine = ++turn;
    const { operator } = state;
    const editions = all.get(operator);
    said.say(`ONNX Runtime is asked about ${operator} …`);
    try {
      const lines = answers.get(operator) ?? [];
      for (const edition of editions.slice(lines.length)) {
        lines.push(await found(operator, edition));
        if (mine !== turn) return;
      }
      answers.set(operator, lines);
      show();
      const last = editions.findLastIndex(({ event }) => event !== "withdrawn");
      const which = last < editions.length - 1 ? `${operator} was withdrawn with opset ${editions.at(-1).opset}. Opset` : `${operator}, opset`;
      said.say(`${which} ${editions[last].opset}: ${lines[last].line}.`);
    } catch (error) {
      if (mine === turn) said.fail(error);
    }
  }
}

/** What was found, with ONNX Runtime's own words folded away. */
function cell({ line: text, words: quotations }) {
  if (!quotations.length) return text;
  return [text, h("details", { class: "opset-words" }, h("summary", {}, "ONNX Runtime's words"), quotations.map((one) => h("p", {}, one)))];
}

function matches(name, editions, { find, opset }) {
  const wanted = find.trim().toLowerCase();
  const has = (text) => text.toLowerCase().includes(wanted);
  const named = has(name) || editions.some(({ inputs, attributes }) => inputs.some(([text]) => has(text)) || attributes.some(([text]) => has(text)));
  return named && (!opset || editions.some((one) => String(one.opset) === opset));
}

/** For which types a session can be made: {line, words}. */
async function found(operator, edition) {
  if (edition.event === "withdrawn") return { line: "–", words: [] };
  const types = typesOf(edition);
  if (!types.length || !probe(operator, edition, types[0])) return { line: "not asked: it takes a sequence, or has a graph or a tensor inside", words: [] };
  const reasons = new Map();
  for (const type of types) reasons.set(type, await refusal(writeModel(probe(operator, edition, type))));
  return told(reasons);
}

async function refusal(model) {
  try {
    (await open(model, AS_WRITTEN)).release();
    return "";
  } catch (error) {
    if (error.cause) throw error; // the runtime itself could not be loaded
    return reason(words(error));
  }
}

// A graph as text: read, drawn, checked by ONNX Runtime and run in the page, with what each node writes.

import { drawGraph } from "../kit/graph.js";
import { shapeOf, writeModel } from "../kit/onnx.js";
import { bytes, open, place, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, field, h, refusal, status, table } from "../kit/ui.js";
import { parseModel } from "./text.js";
import { listed, made, parseValues, rowSums } from "./values.js";

const PAUSE = 400; // milliseconds from the last key to the next drawing

export async function mount(root, lab) {
  const facts = JSON.parse(new TextDecoder().decode(await bytes(new URL("build_graph.json", lab.base).href)));
  const texts = new Map([["", facts.text], ...facts.changes.map(({ name, text }) => [name, text])]);
  const given = read(lab.name);
  let change = texts.has(given.change) ? given.change : "";
  let turn = 0;
  let typing = 0;
  let model = null;
  const editor = h("textarea", { class: "build-text", rows: 12, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-label": "The model, as text", oninput: () => edited() });
  editor.value = given.text ?? texts.get(change);
  const chooser = h("select", { class: "build-change", "aria-label": "Change", onchange: () => choose(chooser.value) }, [["", "none: as it should be"], ...facts.changes.map(({ name, label }) => [name, label])].map(([value, label]) => h("option", { value, selected: value === change }, label)));
  const inputs = h("div", { class: "build-inputs" });
  const values = { ...facts.values, ...parsed(given.values) };
  const said = status();
  const checker = h("p", { class: "build-checker" });
  const drawing = h("div", { class: "lab-scroll", tabindex: "0", role: "region", "aria-label": "The graph, drawn" });
  const shown = h("div", { class: "build-shown" });
  root.append(
    field("Change", chooser),
    h("div", { class: "build-sides" }, h("div", {}, editor, inputs, button("Run", () => run())), h("div", {}, drawing)),
    said.element,
    checker,
    shown,
  );
  take();
  if (model && change && given.text === undefined) await run(); // a text of somebody else's runs when it is asked to

  function choose(name) {
    change = name;
    editor.value = texts.get(name);
    take();
    keep();
    run();
  }

  function edited() {
    turn++; // what is under way is about another text
    clearTimeout(typing);
    typing = setTimeout(() => (take(), keep()), PAUSE);
  }

  function keep() {
    const own = editor.value !== texts.get(change);
    const changed = Object.entries(values).some(([name, text]) => text !== facts.values[name]);
    write(lab.name, { change, text: own ? editor.value : "", values: changed ? JSON.stringify(values) : "" });
  }

  /** Read the text, draw its graph, and ask for what its inputs need. */
  function take() {
    turn++;
    clearTimeout(typing);
    shown.replaceChildren();
    checker.textContent = "";
    try {
      model = parseModel(editor.value);
    } catch (error) {
      model = null;
      drawing.replaceChildren();
      return said.fail(error);
    }
    draw();
    said.say("Run it: ONNX Runtime is loaded with the first run.");
    const names = free(model.graph).map((info) => {
      values[info.name] ??= made(info);
      const input = h("input", { type: "text", class: "build-values", value: values[info.name], spellcheck: "false", oninput: () => ((values[info.name] = input.value), turn++, keep()) });
      return field(`Values of ${info.name}, ${typed(info)}`, input);
    });
    inputs.replaceChildren(...names);
  }

  function draw(shapes = new Map()) {
    const writes = (id) => (id.startsWith("node ") ? model.graph.node[Number(id.slice(5))].output.filter((name) => shapes.has(name)).map((name) => `${name} [${shapes.get(name).join(", ")}]`) : []);
    try {
      drawing.replaceChildren(drawGraph(model.graph, { label: `The graph ${model.graph.name}`, detail: writes }));
    } catch (error) {
      drawing.replaceChildren(h("p", {}, error.message));
    }
  }

  async function run() {
    if (typing) take();
    if (!model) return;
    const mine = ++turn;
    const mind = (found) => (mine === turn ? found() : undefined);
    const known = facts.changes.find(({ text }) => text === editor.value);
    checker.textContent = known ? `onnx.checker in Python says: ${known.checker ? `“${known.checker}”` : "nothing; it finds no fault."}` : "";
    shown.replaceChildren();
    draw(); // without the shapes of the last run
    try {
      const feeds = {};
      for (const info of free(model.graph)) {
        const { type, data, dims } = parseValues(info, values[info.name]);
        feeds[info.name] = await tensor(type, data, dims);
      }
      said.say("It is being loaded …");
      (await open(writeModel(model))).release(); // as it is written: its words are about this model
      const session = await open(writeModel(withAll(model)));
      try {
        const answer = await session.run(feeds);
        mind(() => tell(answer, session));
      } finally {
        session.release();
      }
    } catch (error) {
      mind(() => said.fail(refusal(error)));
    }
  }

  function tell(answer, session) {
    const all = model.graph.node.flatMap(({ op_type, output }) => output.filter(Boolean).map((name) => [name, op_type, answer[name]]));
    draw(new Map(all.map(([name, , { dims }]) => [name, dims])));
    shown.replaceChildren(table(["tensor", "written by", "type and shape", "values"], all.map(([name, op, found]) => [name, op, `${found.type} [${found.dims.join(", ")}]`, listed(found)])));
    const outputs = model.graph.output.map(({ name }) => name);
    const sums = outputs.map((name) => [name, rowSums(answer[name])]).filter(([, found]) => found);
    const told = sums.map(([name, found]) => ` Sum of each row of ${name}: ${found}.`).join("");
    said.say(`It runs: ${outputs.map((name) => `${name} = ${listed(answer[name])}`).join(", ")}.${told} ${place(session)}.`);
  }
}

/** What has to be given: inputs without values in the file. */
const free = (graph) => graph.input.filter(({ name }) => !graph.initializer.some((stored) => stored.name === name));

const typed = (info) => (shapeOf(info) ? `[${shapeOf(info).join(", ")}]` : "any shape");

/** The same model, with every tensor as an output. ONNX Runtime finds out the types. */
function withAll(model) {
  const { graph } = model;
  const outputs = new Set(graph.output.map(({ name }) => name));
  const more = graph.node.flatMap(({ output }) => output).filter((name) => name && !outputs.has(name));
  return { ...model, graph: { ...graph, output: [...graph.output, ...more.map((name) => ({ name }))] } };
}

/** Values from an address: an object of texts, or nothing. */
function parsed(text) {
  try {
    return Object.fromEntries(Object.entries(JSON.parse(text)).filter(([, value]) => typeof value === "string"));
  } catch {
    return {};
  }
}

// A small module, one of three mechanisms, one of three inputs: what is in the file, and does it give PyTorch's numbers?

import { describeGraph, drawGraph } from "../kit/graph.js";
import { small } from "../kit/numbers.js";
import { readModel } from "../kit/onnx.js";
import { bytes, open, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, choice, h, status, table, words } from "../kit/ui.js";
import { drawable, judge, matrix, short } from "./drawn.js";

const MODULES = { plain: "Plain", branch: "Branch", loop: "Loop", number: "Number" };
const MECHANISMS = { trace: "Tracing", script: "Scripting", default: "Default exporter" };
const INPUTS = { example: "the example", values: "other values", rows: "five rows" };
const KEYS = { module: MODULES, mechanism: MECHANISMS, input: INPUTS };
const LEGENDS = { module: "Module", mechanism: "Mechanism", input: "Input of the file" };
const START = { module: "branch", mechanism: "trace", input: "example" };
// As in models/three_exports.py: the number of rows is asked to be free.
const CALLS = {
  trace: 'torch.onnx.export(module, (example,), file, dynamo=False,\n    dynamic_axes={"x": {0: "rows"}}, …)',
  script: 'scripted = torch.jit.script(module)\ntorch.onnx.export(scripted, (example,), file, dynamo=False,\n    dynamic_axes={"x": {0: "rows"}}, …)',
  default: "torch.onnx.export(module, (example,), file,\n    dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), …)",
};
const VERDICTS = {
  right: ["✓", "right"],
  wrong: ["✗", "wrong numbers, no error"],
  refused: ["!", "refused when it runs"],
  none: ["–", "no file"],
};

export async function mount(root, lab) {
  const facts = JSON.parse(new TextDecoder().decode(await bytes(new URL("three_exports.json", lab.base).href)));
  const given = read(lab.name);
  const state = Object.fromEntries(Object.entries(START).map(([key, usual]) => [key, Object.hasOwn(KEYS[key], given[key] ?? "") ? given[key] : usual]));
  const files = {}; // name → promise of {graph, session}
  const tried = {}; // "branch trace example" → verdict
  const controls = Object.keys(KEYS).map((key) =>
    choice(LEGENDS[key], Object.entries(KEYS[key]), state[key], (value) => {
      state[key] = value;
      write(lab.name, state);
      show();
      run();
    }),
  );
  const source = h("div", { class: "exports-part" });
  const graph = h("div", { class: "exports-part exports-graph" });
  const result = h("div", { class: "exports-result" });
  const board = h("div", { class: "exports-board" });
  const said = status();
  let turn = 0;
  root.append(
    h("div", { class: "exports-controls" }, controls),
    h("div", { class: "exports-parts" }, source, graph),
    h("div", {}, button("Export and run", () => (write(lab.name, state), run()))),
    said.element,
    result,
    board,
    h("div", {}, button("Try all that is left", all)),
    h("p", { class: "exports-note" }, "PyTorch exported the files, and computed its numbers, when this book was built. The number of rows was asked to be free. The files run in this page."),
  );
  show();
  fill();
  if (Object.keys(given).length) await run();

  function show() {
    const { source: lines, line } = facts.modules[state.module];
    const marked = (text) => (line && text.trim() === line ? h("mark", {}, text) : text);
    source.replaceChildren(
      h("p", { class: "exports-head" }, "The module"),
      h("pre", { tabindex: "0", "aria-label": "Source of the module" }, lines.flatMap((text) => [marked(text), "\n"])),
      h("p", { class: "exports-head" }, "The call"),
      h("pre", { tabindex: "0", "aria-label": "Call of the exporter" }, `example = torch.tensor(${matrix(facts.inputs.example)})\n${CALLS[state.mechanism]}`),
    );
    graph.replaceChildren(h("p", { class: "exports-head" }, "The file"), h("p", { class: "exports-note" }, "Choose “Export and run” to see its graph."));
    result.replaceChildren();
  }

  function load(name) {
    files[name] ??= bytes(new URL(`${name}.onnx`, lab.base).href)
      .then(async (found) => ({ graph: readModel(found).graph, session: await open(found) }))
      .catch((error) => {
        delete files[name]; // the next click tries again
        throw error;
      });
    return files[name];
  }

  /** What one of the three inputs gives: `{verdict, …}`. Throws only when a file or the runtime could not be loaded. */
  async function attempt({ module, mechanism, input }) {
    const { refused } = facts.modules[module].exports[mechanism];
    let found = { verdict: "none", text: refused };
    if (!refused) {
      const file = await load(`${module}_${mechanism}`);
      const x = facts.inputs[input];
      const torch = facts.modules[module].torch[input];
      const feeds = { x: await tensor("float32", Float32Array.from(x.flat()), [x.length, x[0].length]) };
      try {
        const { y } = await file.session.run(feeds);
        found = { file, y, torch, ...judge(y, torch) };
      } catch (error) {
        found = { file, verdict: "refused", text: words(error) };
      }
    }
    tried[`${module} ${mechanism} ${input}`] = found.verdict;
    return found;
  }

  async function run() {
    const mine = ++turn; // the last click wins
    const asked = { ...state };
    said.say("The file is running …");
    try {
      const found = await attempt(asked);
      if (mine !== turn) return;
      tell(asked, found);
      fill();
    } catch (error) {
      if (mine === turn) said.fail(error);
    }
  }

  async function all() {
    const mine = ++turn;
    said.say("The files are running …");
    try {
      for (const module in MODULES)
        for (const mechanism in MECHANISMS)
          for (const input in INPUTS) if (!tried[`${module} ${mechanism} ${input}`]) await attempt({ module, mechanism, input });
      fill();
      if (mine === turn) said.say("All are tried: look at the table.");
    } catch (error) {
      if (mine === turn) said.fail(error);
    }
  }

  function tell({ module, mechanism, input }, { verdict, file, y, torch, difference, text }) {
    const { warned } = facts.modules[module].exports[mechanism];
    const ends = {
      right: () => `PyTorch's numbers; the largest difference is ${small(difference)}.`,
      wrong: () => `wrong numbers, and no error; the largest difference is ${Number.isFinite(difference) ? short(difference) : "in the shape"}.`,
      refused: () => "refused when it runs. ONNX Runtime says why.",
      none: () => "there is no file. PyTorch refuses to export.",
    };
    const about = verdict === "none" ? "" : `, ${INPUTS[input]}`;
    said.say(`${VERDICTS[verdict][0]} ${MODULES[module]}, ${MECHANISMS[mechanism].toLowerCase()}${about}: ${ends[verdict]()}`);
    graph.replaceChildren(
      h("p", { class: "exports-head" }, "The file"),
      file ? drawing(file.graph) : h("p", {}, "There is none."),
      warned ? h("p", { class: "exports-note" }, `During the export, PyTorch warned: “${warned}.” The file does not carry this warning.`) : "",
    );
    const said1 = verdict === "none" ? "PyTorch's error" : "ONNX Runtime's error";
    result.replaceChildren(text ? h("pre", { tabindex: "0", "aria-label": said1 }, text) : numbers(facts.inputs[input], y, torch));
  }

  function fill() {
    const cell = (module, mechanism) => {
      if (facts.modules[module].exports[mechanism].refused && Object.keys(INPUTS).some((input) => tried[`${module} ${mechanism} ${input}`])) {
        return h("span", { class: "exports-mark", "data-verdict": "none" }, "no file");
      }
      return Object.entries(INPUTS).map(([input, title]) => {
        const verdict = tried[`${module} ${mechanism} ${input}`];
        const [sign, text] = VERDICTS[verdict] ?? ["·", "not tried"];
        return h("span", { class: "exports-mark", role: "img", "aria-label": `${title}: ${text}`, title: `${title}: ${text}`, "data-verdict": verdict }, sign);
      });
    };
    const rows = Object.entries(MODULES).map(([module, title]) => [title, ...Object.keys(MECHANISMS).map((mechanism) => cell(module, mechanism))]);
    board.replaceChildren(
      h("p", { class: "exports-head" }, "What you have tried"),
      table(["", ...Object.values(MECHANISMS)], rows),
      h("p", { class: "exports-note" }, `Three signs: ${Object.values(INPUTS).join(", ")}. ✓ right, ✗ wrong without an error, ! refused when it runs, · not tried.`),
    );
  }
}

function drawing(graph) {
  const { graph: drawn, details } = drawable(graph);
  const detail = (id) => (id.startsWith("node ") ? details[Number(id.slice(5))] : []);
  const lines = describeGraph(drawn).map((line, at) => [line.replace(/^\d+\. /, ""), ...details[at].map((text) => `${text}.`)].join(" "));
  return h(
    "div",
    {},
    h("div", { class: "lab-scroll", tabindex: "0", role: "region", "aria-label": "Graph of the file" }, drawGraph(drawn, { label: "The graph of the file", detail })),
    h("details", { class: "exports-words" }, h("summary", {}, "In words"), h("ol", {}, lines.map((line) => h("li", {}, line)))),
  );
}

/** Input, the file's answer and PyTorch's, row by row. */
function numbers(x, y, torch) {
  const whole = !Array.isArray(torch[0]); // one answer for all rows
  const width = y.dims.at(-1);
  const mine = (at) => Array.from(y.data.slice(at * width, (at + 1) * width), short).join(", ");
  const theirs = whole ? [torch] : torch;
  const row = (values, at) => {
    const [file, right] = [mine(at), values.map(short).join(", ")];
    const cells = [file, right, file === right ? "" : h("strong", {}, "differs")];
    return whole ? ["y", ...cells] : [`${at + 1}`, x[at].map(short).join(", "), ...cells];
  };
  return table(whole ? ["", "the file", "PyTorch", ""] : ["row", "x", "the file", "PyTorch", ""], theirs.map(row));
}

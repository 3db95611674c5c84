// One graph as it was written and as a level of optimisation leaves it, side by side; which nodes became which; all run.

import { describeGraph, drawGraph, updateGraph } from "../kit/graph.js";
import { apart, small } from "../kit/numbers.js";
import { readModel } from "../kit/onnx.js";
import { open, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, choice, grouped, h, status, table } from "../kit/ui.js";
import { family, moved, randomInput, tell } from "./origins.js";

const LEVELS = ["none", "basic", "extended"];
const SHAPE = [1, 2, 8, 8];
const MODELS = { untidy: "y only", debug: "y, and c from inside" };
/** The state in an address, with the usual values in place of what there is not. */
const allowed = (given) => ({
  level: LEVELS.slice(1).includes(given.level) ? given.level : "basic",
  outputs: Object.hasOwn(MODELS, given.outputs ?? "") ? given.outputs : "untidy",
  node: /^(left|right) \d{1,3}$/.test(given.node ?? "") ? given.node : "",
  input: /^\d{1,6}$/.test(given.input ?? "") ? Number(given.input) : 0,
});

const HINTS = {
  untidy: "Choose a node in either graph: the nodes that it became, or that it stands for, light up in the other one.",
  debug: "c must stay as it was, so no fusion may remove it: the first Conv, BatchNormalization and Relu stay three nodes.",
};

export async function mount(root, lab) {
  const answer = await fetch(new URL("fusion.json", lab.base));
  const facts = await answer.json();
  const given = read(lab.name);
  const state = allowed(given);
  const graphs = {}; // file name → its graph
  const sessions = {}; // file name → promise of a session
  const controls = [
    pick("level", "Level", [["basic", "basic"], ["extended", "extended"]]),
    pick("outputs", "Outputs of the model", Object.entries(MODELS)),
  ];
  const sides = { left: h("div", { class: "fusion-side" }), right: h("div", { class: "fusion-side" }) };
  const both = h("div", { class: "fusion-sides" }, sides.left, sides.right);
  const story = h("p", { class: "fusion-story", "aria-live": "polite" });
  const results = h("div", { class: "fusion-results" });
  const said = status();
  let drawn = {};
  root.append(
    h("div", { class: "fusion-controls" }, controls),
    story,
    both,
    h("p", { class: "fusion-note" }, "512→512 B: the node reads 512 bytes that other nodes wrote, and writes 512. Weights do not count."),
    h(
      "div",
      { class: "fusion-run" },
      button("Run all three levels", () => runWith(state.input)),
      button("With another input", () => runWith(state.input + 1)),
    ),
    said.element,
    results,
    h(
      "p",
      { class: "fusion-note" },
      "Python's ONNX Runtime saved the three files when this book was built. The levels ",
      h("em", {}, "layout"),
      " and ",
      h("em", {}, "all"),
      " are left out: what they write fits one kind of processor, and does not run in a page.",
    ),
  );
  await show();
  if (given.input !== undefined) await run();

  function pick(key, legend, options) {
    return choice(legend, options, state[key], (value) => {
      Object.assign(state, { [key]: value, node: "" });
      write(lab.name, state);
      results.replaceChildren();
      said.say("");
      return show();
    });
  }

  function runWith(input) {
    state.input = input;
    write(lab.name, state);
    return run();
  }

  async function graphOf(level) {
    const file = `${state.outputs}_${level}.onnx`;
    if (!graphs[file]) {
      const response = await fetch(new URL(file, lab.base));
      graphs[file] = readModel(await response.arrayBuffer()).graph;
    }
    return graphs[file];
  }

  async function show() {
    const { level, outputs } = state;
    const [left, right] = [await graphOf("none"), await graphOf(level)];
    if (level !== state.level || outputs !== state.outputs) return; // another click came between
    const [before, after] = [facts.models[outputs].none, facts.models[outputs][level]];
    drawn = {
      ops: { left: left.node.map((node) => node.op_type), right: right.node.map((node) => node.op_type) },
      after,
      left: draw("left", left, before, (at) => after.gone[at] ?? ""),
      right: draw("right", right, after, (at) => after.nodes[at].what),
    };
    const head = (title, { nodes }, facts) =>
      h("p", { class: "fusion-head" }, h("strong", {}, title), h("span", {}, `${nodes.length} nodes, ${bytes(moved(facts))} between them`));
    sides.left.replaceChildren(head("As written", before, before), drawn.left, inWords(left, "The graph as written, in words"));
    sides.right.replaceChildren(head(`At ${level}`, after, after), drawn.right, inWords(right, "The optimised graph, in words"));
    // Both in the same scale, also where the page is too narrow for them.
    both.style.gridTemplateColumns = ["left", "right"].map((side) => `minmax(0, ${drawn[side].getAttribute("width")}fr)`).join(" ");
    select(state.node);
  }

  function draw(side, graph, { nodes }, mark) {
    const at = (id) => (id.startsWith("node ") ? Number(id.slice(5)) : -1);
    return drawGraph(graph, {
      label: side === "left" ? "The graph as written" : `The graph at the level ${state.level}`,
      detail: (id) => (at(id) < 0 ? [] : [mark(at(id)).replace("kept", ""), traffic(nodes[at(id)])]),
      marks: (id) => (at(id) < 0 ? "" : mark(at(id))),
      onSelect: (id) => {
        const node = `${side} ${at(id)}`;
        state.node = node === state.node ? "" : node;
        write(lab.name, state);
        select(state.node);
      },
    });
  }

  function select(node) {
    const [side, number] = node.split(" ");
    const index = Number(number);
    const known = node && index < drawn.ops[side].length;
    const lit = known ? family(drawn.after, side, index) : { left: [], right: [] };
    for (const one of ["left", "right"]) {
      updateGraph(drawn[one], { select: known && one === side ? `node ${index}` : null, highlight: lit[one] });
      drawn[one].classList.toggle("lab-graph-dims", Boolean(known));
    }
    story.textContent = known ? tell(drawn.after, side, index, drawn.ops) : HINTS[state.outputs];
  }

  async function run() {
    const { outputs, input } = state;
    said.say("The files are running …");
    const x = input ? randomInput(input, facts.x.length) : Float32Array.from(facts.x);
    try {
      const rows = [];
      for (const level of LEVELS) {
        const file = `${outputs}_${level}.onnx`;
        // The graphs are optimised already: the session must leave them as they are.
        sessions[file] ??= open(new URL(file, lab.base).href, { sessionOptions: { graphOptimizationLevel: "disabled" } });
        const session = await sessions[file];
        rows.push({ level, y: (await session.run({ x: await tensor("float32", x, SHAPE) })).y.data });
      }
      if (outputs !== state.outputs || input !== state.input) return;
      results.replaceChildren(resultTable(rows, facts.models[outputs]));
      const largest = Math.max(...rows.map(({ y }) => apart(y, rows[0].y)));
      const same = largest <= 1e-3 ? "the same numbers, up to rounding" : "different numbers";
      said.say(`Input ${input}: the three files give ${same}; the largest difference is ${small(largest)}.`);
    } catch (error) {
      for (const file in sessions) delete sessions[file];
      said.fail(error);
    }
  }
}

const traffic = ({ reads, writes }) => `${reads}→${writes} B`;
const bytes = (count) => `${grouped(count)} bytes`;

const inWords = (graph, title) =>
  h("details", { class: "fusion-words" }, h("summary", {}, title), h("ol", {}, describeGraph(graph).map((line) => h("li", {}, line.replace(/^\d+\. /, "")))));

function resultTable(rows, model) {
  const row = ({ level, y }) => [
    level,
    `${model[level].nodes.length}`,
    bytes(moved(model[level])).replace(" bytes", "\u00a0B"),
    Array.from(y, (value) => value.toFixed(4)).join(", "),
    small(apart(y, rows[0].y)),
  ];
  return table(["level", "nodes", "traffic", "y", "off by"], rows.map(row));
}

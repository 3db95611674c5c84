// One graph, and who computes it: WebAssembly or WebGPU in this page, or a provider on another machine, as it was recorded.

import { drawGraph } from "../kit/graph.js";
import { apart, small } from "../kit/numbers.js";
import { readModel } from "../kit/onnx.js";
import { bytes, open, place, possibleThreads, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, choice, h, refusal, status, table, words } from "../kit/ui.js";
import { copied, shares } from "./places.js";

const HERE = { wasm: "WebAssembly", webgpu: "WebGPU" };
const NO_WEBGPU = "This browser has no WebGPU. The recorded plug-in shows the same graph.";
const RUNS = 20;
const STRICT = { extra: { session: { disable_cpu_ep_fallback: "1" } } }; // a node that is left for the CPU is an error

export async function mount(root, lab) {
  const file = (name) => bytes(new URL(name, lab.base).href);
  const facts = JSON.parse(new TextDecoder().decode(await file("who_computes.json")));
  const recorded = facts.mixed.records.map(({ who }, at) => [`record ${at}`, `${who}, recorded`]);
  const given = read(lab.name);
  const state = {
    graph: Object.hasOwn(facts, given.graph) ? given.graph : "mixed",
    who: [...Object.keys(HERE), ...recorded.map(([key]) => key)].includes(given.who) ? given.who : "record 1",
  };
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const models = new Map();
  let turn = 0;
  const drawing = h("div", { class: "lab-scroll", tabindex: "0", role: "region", "aria-label": "The graph, drawn" });
  const shown = h("div", { class: "who-shown" });
  const said = status();
  const here = h("p", { class: "who-here" }, tellHere(adapter));
  const run = button("Run in this page", () => compute());
  root.append(
    h("div", { class: "who-controls" }, [
      choice("Graph", Object.entries(facts).map(([name, { title }]) => [name, title]), state.graph, (graph) => change({ graph })),
      choice("Who computes", [...Object.entries(HERE).map(([key, name]) => [key, `${name}, here`]), ...recorded], state.who, (who) => change({ who })),
    ]),
    h("div", { class: "who-sides" }, drawing, h("div", {}, shown, run, said.element, here)),
  );
  await show();

  function change(part) {
    Object.assign(state, part);
    write(lab.name, state);
    show();
  }

  async function model(name) {
    if (!models.has(name)) models.set(name, await file(`${name}.onnx`));
    return models.get(name);
  }

  async function show() {
    const mine = ++turn;
    const { graph } = readModel(await model(state.graph));
    if (mine !== turn) return;
    const inPage = Boolean(HERE[state.who]);
    const lacking = state.who === "webgpu" && !adapter;
    run.hidden = !inPage || lacking;
    shown.replaceChildren();
    if (inPage) {
      draw(graph);
      return said.say(lacking ? NO_WEBGPU : `Run it on ${HERE[state.who]}: the answer is compared with the one of ONNX Runtime in Python.`);
    }
    const record = facts[state.graph].records[Number(state.who.slice("record ".length))];
    const rows = [["largest difference from the CPU's numbers", small(record.apart)], ["where the CPU is forbidden", record.forbidden ? `“${record.forbidden}”` : "it runs, too"]];
    tell(graph, record.placed, record.who === "CPU" ? [] : rows);
    said.say(`Recorded: ${record.made}.`);
  }

  function draw(graph, placed = {}) {
    const name = (id) => (id.startsWith("node ") ? graph.node[Number(id.slice(5))].name : "");
    const mark = (id) => ({ CPU: "on the CPU", undefined: "" })[placed[name(id)]] ?? "on the device";
    drawing.replaceChildren(drawGraph(graph, { label: `The graph ${graph.name}, with who computes each node`, detail: (id) => [placed[name(id)]], marks: mark }));
  }

  function tell(graph, placed, rows) {
    draw(graph, placed);
    const crossing = copied(graph, placed);
    shown.replaceChildren(
      table(["", "this graph"], [
        ["nodes", shares(placed).map(([provider, count]) => `${count} on ${provider}`).join(", ")],
        ["copied between providers", crossing.length ? `${crossing.length}: ${crossing.join(", ")}` : "nothing"],
        ...rows,
      ]),
    );
  }

  async function compute() {
    const mine = ++turn;
    const { graph: name, who } = state;
    const { shape, input, output } = facts[name];
    said.say(`${HERE[who]} is being asked …`);
    try {
      const data = await model(name);
      const refused = who === "webgpu" ? await forbidden(data) : "";
      const session = await open(data, { provider: who });
      const x = await tensor("float32", Float32Array.from(input), shape);
      const times = [];
      let answer;
      for (let i = 0; i < RUNS; i++) {
        const start = performance.now();
        answer = Object.values(await session.run({ x }))[0];
        times.push(performance.now() - start);
      }
      session.release();
      if (mine !== turn) return;
      const { graph } = readModel(data);
      const rows = [
        ["largest difference from Python's numbers", small(apart(answer.data, output))],
        ["one run, the median of 20", `${times.sort((one, other) => one - other)[RUNS / 2].toFixed(2)} ms`],
      ];
      if (who === "webgpu") rows.push(["where the CPU is forbidden", refused ? `“${refused}”` : "it runs, too"]);
      if (refused) shown.replaceChildren(table(["", "this graph"], rows));
      else tell(graph, Object.fromEntries(graph.node.map((node) => [node.name, HERE[who]])), rows);
      said.say(refused ? "It runs, and nothing is said. Not every node runs on WebGPU: the error tells that some are left for the CPU." : `It runs on ${place(session)}, every node.`);
    } catch (error) {
      if (mine === turn) said.fail(refusal(error));
    }
  }
}

/** ONNX Runtime's words where a node would be left for the CPU, and that is forbidden; nothing where none is. */
async function forbidden(data) {
  try {
    (await open(data, { provider: "webgpu", sessionOptions: STRICT })).release();
    return "";
  } catch (error) {
    if (error.cause || !/fallback/.test(error.message)) throw error;
    return words(error);
  }
}

/** What this page has, in a sentence. adapter: of WebGPU, or nothing. */
function tellHere(adapter) {
  const threads = possibleThreads();
  const why = globalThis.crossOriginIsolated ? "" : ", since the page is not isolated from others";
  const gpu = adapter ? `WebGPU${adapter.info?.vendor ? ` (${adapter.info.vendor})` : ""}` : "no WebGPU";
  return `This page has WebAssembly with ${threads === 1 ? "one thread" : `${threads} threads`}${threads === 1 ? why : ""}, and ${gpu}.`;
}

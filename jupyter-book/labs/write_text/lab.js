// The course's small language model writes in the page, token by token: with its cache, or all anew for each token.

import { bytes, open, place, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { bars, button, choice, field, h, refusal, status, table } from "../kit/ui.js";
import { chances, highest } from "./choosing.js";
import { tokenizer } from "./tokens.js";
import { continued } from "./writing.js";

const COUNT = 100; // tokens at most
const SHOWN = 6; // bars
const [HOTTEST, STEP] = [2, 0.1];
const MOST = { 5: "5", 20: "20", 0: "all" };
const CACHE = { 1: "with cache", 0: "without" };
const WHERE = { wasm: "WebAssembly", webgpu: "WebGPU" };
const END = 0; // the token that stands before a page

export async function mount(root, lab) {
  const json = async (name) => JSON.parse(new TextDecoder().decode(await bytes(new URL(name, lab.base).href)));
  const [{ sizes, prompts }, stored] = await Promise.all([json("write_text.json"), json("tokenizer.json")]);
  const tokens = tokenizer(stored);
  const given = read(lab.name);
  const number = (text, low, high, otherwise) => (text !== undefined && Number(text) >= low && Number(text) <= high ? Number(text) : otherwise);
  const state = {
    prompt: given.prompt ?? prompts[0],
    temperature: String(Math.round(10 * number(given.temperature, 0, HOTTEST, 0)) / 10),
    most: Object.hasOwn(MOST, given.most) ? given.most : "20",
    seed: String(Math.floor(number(given.seed, 0, 2 ** 32 - 1, 1))),
    cache: Object.hasOwn(CACHE, given.cache) ? given.cache : "1",
    on: Object.hasOwn(WHERE, given.on) ? given.on : "wasm",
  };
  const sessions = {}; // where → promise of a session
  const measured = new Map(); // what was asked for → text and speed, with the cache and without
  let turn = 0;
  let stopped = false;

  const prompt = h("input", { type: "text", maxlength: 200, value: state.prompt, oninput: () => change({ prompt: prompt.value }) });
  const told = h("b", {}, heat());
  const slider = h("input", { type: "range", min: 0, max: HOTTEST, step: STEP, value: state.temperature, oninput: () => (change({ temperature: slider.value }), (told.textContent = heat())) });
  const seed = h("input", { type: "number", min: 0, max: 2 ** 32 - 1, value: state.seed, onchange: () => (seed.value = state.seed), oninput: () => change({ seed: String(Math.floor(number(seed.value, 0, 2 ** 32 - 1, 1))) }) });
  const drawnFrom = choice("Drawn from the most probable", Object.entries(MOST).sort(([one], [other]) => (Number(one) || Infinity) - (Number(other) || Infinity)), state.most, (most) => change({ most }));
  const examples = h("p", { class: "write-examples" }, prompts.map((text) => button(text, () => ((prompt.value = text), change({ prompt: text }), run()))));
  const start = button("Write", () => run());
  const stop = button("Stop", () => (stopped = true), { disabled: true });
  const said = status();
  const page = h("p", { class: "write-page", role: "region", "aria-label": "The text" });
  const chart = h("div");
  const speeds = h("div");
  root.append(
    field("Prompt", prompt),
    examples,
    h("div", { class: "write-controls" }, [
      choice("Each step", Object.entries(CACHE).reverse(), state.cache, (cache) => change({ cache })),
      choice("Where", Object.entries(WHERE), state.on, (on) => change({ on })),
      field(["Temperature ", told], slider),
      drawnFrom,
      field("Seed", seed),
    ]),
    h("p", { class: "write-buttons" }, start, stop),
    said.element,
    page,
    h("div", { class: "write-below" }, chart, speeds),
  );
  page.append(h("b", {}, state.prompt));
  unused();
  if (Object.keys(given).length) await run();
  else said.say("“Write” loads the model (1.2 MB) and ONNX Runtime.");

  function heat() {
    return Number(state.temperature) ? state.temperature : "0: always the most probable token";
  }

  /** At temperature 0 nothing is drawn. */
  function unused() {
    drawnFrom.disabled = seed.disabled = !Number(state.temperature);
  }

  function change(part) {
    Object.assign(state, part);
    unused();
    turn++;
    start.disabled = false;
    stop.disabled = true;
    write(lab.name, state);
    said.say("Write again: something has changed.");
  }

  async function run() {
    const mine = ++turn;
    const { on, cache } = state;
    write(lab.name, state);
    stopped = false;
    start.disabled = true;
    stop.disabled = false;
    try {
      const ids = tokens.encode(state.prompt);
      const room = sizes.places - COUNT;
      if (ids.length > room) throw new Error(`The prompt has ${ids.length} tokens, and at most ${room} fit: make it shorter.`);
      if (!ids.length) ids.push(END);
      if (!sessions[on]) said.say("The model is loading …");
      sessions[on] ??= ready(on);
      const session = await sessions[on];
      if (mine !== turn) return;
      said.say("It writes …");
      page.replaceChildren(h("b", {}, state.prompt));
      const rule = { temperature: Number(state.temperature), most: Number(state.most), seed: Number(state.seed), cache: cache === "1", count: COUNT, end: END };
      const written = [];
      let took = 0;
      for await (const step of continued(session, sizes, ids, rule, tensor)) {
        if (mine !== turn) return;
        took += step.took;
        if (step.token === END) break;
        written.push(step.token);
        show(written, step, rule);
        await new Promise((next) => setTimeout(next)); // the page is drawn
        if (mine !== turn) return;
        if (stopped) break;
      }
      tell(session, written, (1000 * written.length) / took);
    } catch (error) {
      delete sessions[on]; // the next click tries again
      if (mine === turn) said.fail(refusal(error));
    } finally {
      if (mine === turn) [start.disabled, stop.disabled] = [false, true];
    }
  }

  /** A session that has run once: the first run is slower. */
  async function ready(on) {
    const session = await open(new URL("decoder.onnx", lab.base).href, { provider: on });
    const once = { temperature: 0, most: 0, seed: 0, cache: true, count: 2, end: -1 };
    for await (const step of continued(session, sizes, [END], once, tensor)) void step;
    return session;
  }

  function show(written, { token, scores }, { temperature, most }) {
    const before = tokens.decode(written.slice(0, -1));
    page.replaceChildren(h("b", {}, state.prompt), before, h("mark", {}, tokens.decode(written).slice(before.length)));
    const among = temperature ? most || scores.length : scores.length;
    const every = chances(highest(scores, among), temperature || 1);
    const shares = every.slice(0, SHOWN);
    if (!shares.some(([one]) => one === token)) shares.push(every.find(([one]) => one === token)); // a less probable one was drawn
    const shown = bars(`Chances for the last token, among ${among} tokens. It became ${name(token)}.`, shares.map(([one]) => name(one)), ["chance"]);
    shown.show(0, shares.map(([, chance]) => chance), shares.findIndex(([one]) => one === token));
    chart.replaceChildren(shown.element);
  }

  function name(token) {
    return token === END ? "the end" : `“${tokens.decode([token]).replace(/\n/g, "⏎")}”`;
  }

  function tell(session, written, speed) {
    const { prompt: asked, temperature, most, seed: from, on, cache } = state;
    const key = JSON.stringify([asked, temperature, most, from, on]);
    const rows = measured.get(key) ?? {};
    if (!stopped) rows[cache] = { text: tokens.decode(written), speed };
    measured.set(key, rows);
    const row = (kind) => [CACHE[kind], rows[kind] ? `${rows[kind].speed.toFixed(0)}` : "–"];
    speeds.replaceChildren(table(["This text", "tokens per second"], [row("1"), row("0")]));
    const both = rows[0] && rows[1];
    const same = both ? (rows[0].text === rows[1].text ? " With and without cache: the same text." : " With and without cache: not the same text.") : "";
    said.say(`${written.length} tokens ${CACHE[cache] === "without" ? "without cache" : "with cache"}, ${speed.toFixed(0)} per second. ${place(session)}.${stopped ? " Stopped." : ""}${same}`);
  }
}

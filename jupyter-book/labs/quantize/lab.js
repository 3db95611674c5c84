// Weights of the course's network on a few levels: where the levels lie, what is lost, and what the network still knows.

import { readModel, tensorData, writeModel } from "../kit/onnx.js";
import { bytes, open, place, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, choice, field, grouped, h, status, table } from "../kit/ui.js";
import { picture } from "./drawing.js";
import { withLevels } from "./file.js";
import { quantized } from "./levels.js";

const BITS = { 8: "8", 4: "4", 3: "3", 2: "2" };
const PER = { tensor: "one per tensor", channel: "one per channel" };
const ENDS = { low: "Lower end of the range", high: "Upper end of the range" };
const KEPT = 6; // answers that stay to be seen
const [LEAST, MOST, STEP] = [10, 120, 5]; // per cent of the weights' own range

export async function mount(root, lab) {
  const file = (name) => bytes(new URL(name, lab.base).href);
  const facts = JSON.parse(new TextDecoder().decode(await file("quantize.json")));
  const given = read(lab.name);
  const end = (text) => (Number(text) >= LEAST && Number(text) <= MOST ? String(Math.round(Number(text))) : "100");
  const state = {
    weight: facts.weights[given.weight] ? given.weight : "6",
    bits: BITS[given.bits] ? given.bits : "8",
    per: PER[given.per] ? given.per : "tensor",
    low: end(given.low),
    high: end(given.high),
  };
  let model = null;
  let turn = 0;
  const rule = () => ({ bits: Number(state.bits), perChannel: state.per === "channel", low: Number(state.low) / 100, high: Number(state.high) / 100 });
  const stored = (name) => model.graph.initializer.find((one) => one.name === name);
  const said = status();
  const shown = h("div", { class: "quantize-shown" });
  const answers = h("div", { class: "quantize-answers" });
  const kept = new Map(); // what was asked for → its row, the newest last
  const ask = button("Ask 200 pictures", () => run());
  const chooser = h("select", { "aria-label": "Weights" }, facts.weights.map((name, at) => h("option", { value: at, selected: String(at) === state.weight }, title(name))));
  chooser.addEventListener("change", () => change({ weight: chooser.value }));
  const ends = Object.entries(ENDS).map(([key, label]) => {
    const told = h("b", {}, `${state[key]} %`);
    const slider = h("input", { type: "range", min: LEAST, max: MOST, step: STEP, value: state[key], oninput: () => ((told.textContent = `${slider.value} %`), change({ [key]: slider.value })) });
    return field([label, " ", told], slider);
  });
  root.append(
    h("div", { class: "quantize-controls" }, [
      field("Weights", chooser),
      choice("Bits of a weight", Object.entries(BITS), state.bits, (bits) => change({ bits })),
      choice("Scale", Object.entries(PER), state.per, (per) => change({ per })),
      ends,
    ]),
    shown,
    ask,
    said.element,
    answers,
  );
  shown.append(h("p", { class: "quantize-note" }, "“Ask 200 pictures” loads the network (1.3 MB), and shows its weights here."));
  if (Object.keys(given).length) await run();

  function change(part) {
    Object.assign(state, part);
    write(lab.name, state);
    turn++; // what is under way is about other levels
    if (!model) return;
    show();
    said.say("Ask the 200 pictures again: the levels have changed.");
  }

  function show() {
    const { values, channels } = weightsOf(stored(facts.weights[state.weight]));
    const found = quantized(values, channels, rule());
    const [least, greatest] = [Math.min(...found.scales), Math.max(...found.scales)];
    const rows = [
      ["scale", found.scales.length === 1 ? least.toPrecision(4) : `${channels}, from ${least.toPrecision(2)} to ${greatest.toPrecision(2)}`],
      ["zero point", found.zeros.length === 1 ? String(found.zeros[0]) : `${channels}, from ${Math.min(...found.zeros)} to ${Math.max(...found.zeros)}`],
      ["mean squared error", found.square.toExponential(2).replace("-", "\u2011")],
      ["largest error", found.largest.toPrecision(3)],
      ["clipped weights", `${grouped(found.clipped)} of ${grouped(values.length)}`],
    ];
    shown.replaceChildren(picture(values, channels, found, rule()), table(["", "these weights"], rows));
  }

  function keep(row) {
    const key = row.slice(0, -1).join();
    kept.delete(key);
    kept.set(key, row);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    answers.replaceChildren(table(["bits", "scale", "lower end", "upper end", `right of ${facts.labels.length}`], [...kept.values()]));
  }

  async function run() {
    const mine = ++turn;
    const asked = [state.bits, PER[state.per], `${state.low} %`, `${state.high} %`];
    write(lab.name, state);
    said.say(model ? "The network is asked …" : "The network is being loaded …");
    try {
      model ??= readModel(await file("float.onnx"));
      if (mine !== turn) return;
      show();
      const found = new Map(facts.weights.map((name) => {
        const { values, channels } = weightsOf(stored(name));
        return [name, quantized(values, channels, rule())];
      }));
      const written = writeModel(withLevels(model, found));
      const [session, pixels] = await Promise.all([open(written), file("pictures.bin")]);
      const answer = await session.run({ pixels: await tensor("uint8", pixels, [facts.labels.length, 28, 28]) });
      session.release();
      if (mine !== turn) return;
      const right = facts.labels.filter((label, at) => Number(answer.label.data[at]) === label).length;
      keep([...asked, String(right)]);
      said.say(`${right} of ${facts.labels.length} pictures are named right; with float weights ${facts.right}. All ${facts.weights.length} convolutions have such weights. ${place(session)}.`);
    } catch (error) {
      if (mine === turn) said.fail(error);
    }
  }
}

const title = (name) => name.replace(/^network\./, "").replace(/\.weight$/, "");

function weightsOf(initializer) {
  return { values: tensorData(initializer), channels: Number(initializer.dims[0]) };
}

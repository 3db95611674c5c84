// One picture, two files of the same network: float32 beside int8.

import { bytes, open, place, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { bars, button, grouped, h, percent, status } from "../kit/ui.js";
import { drawable, packed, SIDE, unpacked } from "./pen.js";

const FILES = { float: "float32", int8: "int8" };
const RUNS = 15; // of which the median is shown; both files warm up before
const WARM = 60;
const [BYTES, TIME] = [0, 1]; // rows below the bars

export async function mount(root, lab) {
  const { names, pictures, labels } = JSON.parse(new TextDecoder().decode(await bytes(new URL("classify.json", lab.base).href)));
  const given = read(lab.name);
  const state = { picture: given.picture in pictures ? given.picture : "", drawing: unpacked(given.drawing ?? "") ? given.drawing : "" };
  const asked = Boolean(state.picture || state.drawing);
  if (!asked) state.picture = `${pictures.length - 2}`; // seen differently by the two
  const pixels = new Uint8Array(SIDE * SIDE);

  const canvas = h("canvas", {
    class: "classify-canvas", width: SIDE, height: SIDE, tabindex: "0", role: "application",
    "aria-label": "The picture. Draw on it: with mouse or finger, or with the arrow keys, Space for a dot, Shift and arrow for a line.",
  });
  const label = h("p", { class: "classify-label" });
  const said = status();
  const chart = bars(`Probabilities; milliseconds are the median of ${RUNS} runs in this browser.`, names, Object.values(FILES), ["bytes of the file", "one picture"]);
  const samples = pictures.map((picture, i) => sample(picture, `Picture ${i + 1} of ${pictures.length}`, () => choose(`${i}`)));
  root.append(
    h(
      "div",
      { class: "classify" },
      h(
        "div",
        { class: "classify-left" },
        canvas,
        label,
        h("p", { class: "classify-buttons" }, button("Ask both files", () => ask()), button("Draw your own", clear)),
        h("div", { class: "classify-samples", role: "group", "aria-label": "Pictures of the test set" }, samples),
      ),
      h("div", { class: "classify-right" }, said.element, chart.element),
    ),
  );
  drawable(canvas, pixels, show, drawn);
  put(state.drawing ? unpacked(state.drawing) : pictures[state.picture]);
  const sessions = {}; // file → promise of a session
  let turn = 0;
  if (asked) await ask();

  function put(values) {
    pixels.set(values);
    tellChosen();
    show();
  }

  function tellChosen() {
    samples.forEach((one, i) => one.setAttribute("aria-pressed", `${state.picture === `${i}`}`));
    label.textContent = state.picture ? `Label: ${names[labels[state.picture]]}` : "";
  }

  function show(pen) {
    paint(canvas, pixels);
    if (!pen) return;
    const context = canvas.getContext("2d");
    context.fillStyle = "#ff8c42";
    context.fillRect(...pen, 2, 2);
  }

  function choose(picture) {
    Object.assign(state, { picture, drawing: "" });
    write(lab.name, state);
    put(pictures[picture]);
    return ask();
  }

  function clear() {
    Object.assign(state, { picture: "", drawing: packed(new Uint8Array(SIDE * SIDE)) });
    write(lab.name, state);
    put(new Uint8Array(SIDE * SIDE));
    turn++;
    Object.keys(FILES).forEach((_, at) => {
      chart.show(at);
      chart.tell(at, TIME, "–");
    });
    said.say("Draw a garment on the black square: bright on dark, as large as the square.");
    canvas.focus();
  }

  function drawn() {
    if (state.picture) { // a stroke on a photograph: the address could not hold it
      state.picture = "";
      tellChosen();
    }
    state.drawing = pixels.every((p) => p === 0 || p === 255) ? packed(pixels) : "";
    write(lab.name, state);
    return ask();
  }

  async function ask() {
    const mine = ++turn; // the last click wins
    if (!pixels.some(Boolean)) return said.say("Draw something first.");
    const input = Uint8Array.from(pixels);
    const found = {};
    try {
      for (const [at, name] of Object.keys(FILES).entries()) {
        if (!sessions[name]) said.say(`${FILES[name]}: the file is loading …`);
        sessions[name] ??= open(new URL(`${name}.onnx`, lab.base).href);
        const session = await sessions[name];
        const feeds = { pixels: await tensor("uint8", input, [1, SIDE, SIDE]) };
        const { probability } = await session.run(feeds);
        if (mine !== turn) return;
        found[name] = { session, feeds, probability: Array.from(probability.data) };
        chart.show(at, found[name].probability);
        chart.tell(at, BYTES, grouped(session.size));
      }
      said.say(sentence(found));
      const took = await milliseconds(Object.values(found), () => mine === turn);
      took?.forEach((time, at) => chart.tell(at, TIME, `${time.toFixed(1)} ms`));
    } catch (error) {
      for (const name in FILES) delete sessions[name]; // the next click tries again
      if (mine === turn) said.fail(error);
    }
  }

  function sentence(found) {
    const [float, int8] = Object.keys(FILES).map((name) => best(found[name].probability));
    const same = float.at === int8.at ? `Both say ${names[float.at]}` : `float32 says ${names[float.at]}, int8 says ${names[int8.at]}`;
    return `${same} (${percent(float.share)} and ${percent(int8.share)}). ${place(found.float.session)}.`;
  }
}

const best = (values) => {
  const share = Math.max(...values);
  return { share, at: values.indexOf(share) };
};

/** Median milliseconds of one run of each file. They take turns, so that the page is equally warm for both. Nothing once it is not wanted. */
async function milliseconds(files, wanted) {
  const times = files.map(() => []);
  for (let run = 0; run < WARM + RUNS; run++) {
    for (const [at, { session, feeds }] of files.entries()) {
      const began = performance.now();
      await session.run(feeds);
      if (!wanted()) return undefined;
      if (run >= WARM) times[at].push(performance.now() - began);
    }
  }
  return times.map((all) => all.sort((a, b) => a - b)[RUNS >> 1]);
}

function sample(picture, label, onclick) {
  const canvas = h("canvas", { width: SIDE, height: SIDE });
  paint(canvas, picture);
  return h("button", { type: "button", class: "classify-sample", "aria-label": label, "aria-pressed": "false", onclick }, canvas);
}

function paint(canvas, pixels) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  pixels.forEach((p, i) => image.data.set([p, p, p, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

// Four files of one network are fed the same pictures: which one refuses, which one answers, which one lies?

import { apart, small } from "../kit/numbers.js";
import { open, tensor } from "../kit/runtime.js";
import { read, write } from "../kit/state.js";
import { button, choice, h, status, words } from "../kit/ui.js";
import { judge, resized, SIDE, topRows } from "./compare.js";
import { curves, picture } from "./drawings.js";

// How each was exported: title, what was given for `dynamic_shapes`, a remark.
const FILES = {
  frozen: ["Nothing said", "nothing", "the default"],
  wish: ["A wish", '{0: Dim("batch"), 1: Dim("height"), 2: Dim("width")}', "may be dropped without a message"],
  guess: ["A guess", "{0: Dim.AUTO, 1: Dim.AUTO, 2: Dim.AUTO}", "free if possible; the names are made up by the exporter"],
  promise: ["A promise", '{0: "batch", 1: "height", 2: "width"}', "the exporter refuses the loop with these names: here the same sum is written without one"],
};
const LEGENDS = { batch: "Pictures at once", height: "Height", width: "Width" };
const START = { batch: 1, height: 28, width: 28 };
const VERDICTS = { right: "✓ right", wrong: "✗ wrong numbers, no error", refused: "– refused" };

export async function mount(root, lab) {
  const answer = await fetch(new URL("batch_and_size.json", lab.base));
  const facts = await answer.json();
  const sizes = { batch: facts.batches, height: facts.heights, width: facts.widths };
  const given = read(lab.name);
  const state = allowed();
  const controls = Object.keys(LEGENDS).map(control);
  const pictures = h("div", { class: "sizes-pictures" });
  const said = status();
  const cards = Object.keys(FILES).map((name) => card(name, facts.shapes[name]));
  const sessions = {}; // name → promise of a session
  let turn = 0;
  root.append(
    h(
      "p",
      {},
      `The network adds up the rows of a picture from top to bottom, with a loop; rows further up count less. The exporter saw pictures of ${SIDE} × ${SIDE}.`,
    ),
    h("div", { class: "sizes-controls" }, controls),
    pictures,
    h("div", { class: "sizes-run" }, button("Run the four files", run)),
    said.element,
    h("div", { class: "sizes-cards" }, cards.map(({ element }) => element)),
    h(
      "p",
      { class: "sizes-note" },
      "The curves are the answer to the first picture, one number for each column; the dashed one is PyTorch's. The verdict is on all pictures.",
    ),
  );
  show();
  if (Object.keys(given).length) await run();

  /** The sizes in the address, where there are such; the usual ones in place of others. */
  function allowed() {
    const size = ([key, usual]) => [key, sizes[key].find((one) => `${one}` === given[key]) ?? usual];
    return Object.fromEntries(Object.entries(START).map(size));
  }

  function control(key) {
    const options = sizes[key].map((size) => [`${size}`, `${size}`]);
    return choice(LEGENDS[key], options, `${state[key]}`, (size) => {
      state[key] = Number(size);
      write(lab.name, state);
      show();
      run();
    });
  }

  function show() {
    const { batch, height, width } = state;
    const all = resized(facts.pictures.slice(0, batch), height, width);
    const one = (n) => all.subarray(n * height * width, (n + 1) * height * width);
    pictures.replaceChildren(...facts.classes.slice(0, batch).map((name, n) => picture(one(n), height, width, name)));
    for (const { clear } of cards) clear();
  }

  async function run() {
    const mine = ++turn; // the last click wins
    const { batch, height, width } = state;
    said.say("The files are running …");
    const pixels = resized(facts.pictures.slice(0, batch), height, width);
    const torch = facts.torch[`${height}×${width}`].slice(0, batch);
    const verdicts = [];
    for (const { name, tell } of cards) {
      const found = await ask(name, pixels, { batch, height, width }, torch);
      if (mine !== turn) return;
      tell(found, torch[0]);
      verdicts.push(`${FILES[name][0]}: ${VERDICTS[found.verdict].slice(2)}`);
    }
    said.say(`Input [${batch}, ${height}, ${width}]. ${verdicts.join("; ")}.`);
  }

  async function ask(name, pixels, { batch, height, width }, torch) {
    let session;
    try {
      sessions[name] ??= open(new URL(`${name}.onnx`, lab.base).href);
      session = await sessions[name];
      const columns = await run1(session, pixels, [batch, height, width]);
      const found = { columns, ...judge(columns, torch) };
      if (found.verdict === "wrong" && height > SIDE) {
        const top = await run1(session, topRows(pixels, batch, height, width, SIDE), [batch, SIDE, width]);
        found.topOnly = apart(columns, top) === 0;
      }
      return found;
    } catch (error) {
      if (!session) delete sessions[name]; // not loaded: the next click tries again
      return { verdict: "refused", words: words(error) };
    }
  }
}

async function run1(session, pixels, shape) {
  const { columns } = await session.run({ picture: await tensor("float32", pixels, shape) });
  return columns.data;
}

/** What is known of one file; `tell` shows how it answered. */
function card(name, shape) {
  const [title, how, remark] = FILES[name];
  const result = h("div", { class: "sizes-result" });
  const element = h(
    "section",
    { class: "sizes-card", "aria-label": title, "data-file": name },
    h("p", { class: "sizes-title" }, title, h("small", {}, remark)),
    h("p", {}, "dynamic_shapes: ", h("code", {}, how)),
    h("p", {}, "The file says: ", h("code", {}, shape.replaceAll("'", ""))),
    result,
  );
  const clear = () => {
    result.replaceChildren();
    delete element.dataset.verdict;
  };
  const tell = ({ verdict, columns, difference, topOnly, words: text }, torch) => {
    element.dataset.verdict = verdict;
    const first = columns?.slice(0, torch.length);
    const tells = {
      right: () => h("p", {}, `PyTorch's numbers: the largest difference is ${small(difference)}.`),
      wrong: () =>
        h("p", {}, `Off from PyTorch's by up to ${difference.toFixed(2)}.`, topOnly ? ` These are the numbers of the first ${SIDE} rows: it never read the rest.` : ""),
      refused: () => h("pre", { tabindex: "0", "aria-label": "ONNX Runtime's error" }, text),
    };
    result.replaceChildren(h("p", { class: "sizes-verdict" }, VERDICTS[verdict]), verdict === "refused" ? "" : curves(torch, first), tells[verdict]());
  };
  return { name, element, clear, tell };
}

// Any file is examined in the page: what is wrong with it, where, and what to do. Nothing is uploaded.

import { read, write } from "../kit/state.js";
import { h, status } from "../kit/ui.js";
import { ask } from "./client.js";
import { comparison } from "./comparison.js";
import { leftOut, report } from "./report.js";
import { plain } from "./words.js";

const SITE = new URL("../../../", import.meta.url); // this module lies in `_static/labs/doctor/`
// Files that `models/doctor.py` made → what they are.
const EXAMPLES = {
  misspelt: "A name is misspelt",
  healthy: "A healthy network",
  in_training: "Exported in training mode",
  not_a_number: "Weights are NaN",
  int8: "A healthy int8 network",
  int8_gone_wrong: "An int8 network gone wrong",
  too_new: "From a newer exporter",
  fixed_batch: "With a fixed batch",
  talkative: "Tells too much",
  half: "Half a download",
  web_page: "A web page, saved as .onnx",
};

export async function mount(root, lab) {
  const given = read(lab.name);
  const state = {}; // example, with: only examples stand in the address, never a file of the reader's
  const chosen = { first: null, second: null }; // {name, file}
  const catalogue = await json(new URL("doctor.json", lab.base));
  const said = status();
  const result = h("div", { class: "doctor-result" });
  const differences = h("div", { class: "doctor-differences" });
  const saidOfTwo = status();
  const first = chooser("The file", "first", "example", said, examine);
  const second = chooser("The second file", "second", "with", saidOfTwo, compare);
  for (const line of [said, saidOfTwo]) line.element.classList.add("doctor-said");
  const summary = h("summary", {}, "Compare it with a second file");
  const two = h("details", { class: "doctor-two" }, summary, second.element, saidOfTwo.element, differences);
  const turns = { examine: 0, compare: 0 }; // the last file wins
  let address = ""; // of the file in memory, for the viewer
  root.append(first.element, said.element, result, two, leftOut(catalogue));
  await show({ example: Object.keys(EXAMPLES)[0], ...known(given) });

  /** Open the examples that an address names. */
  async function show({ example, with: other }) {
    if (example && example !== state.example) await first.example(example, false);
    two.open ||= Boolean(other);
    if (other && other !== state.with) await second.example(other, false);
  }

  /** A list of examples, a button for a file, and a place to drop one. which: key of `chosen`; key: of the state;
   * line: for what goes wrong; then: what happens with a file. */
  function chooser(title, which, key, line, then) {
    const list = h("select", { "aria-label": `${title}: an example` });
    const none = h("option", { value: "" }, "Choose an example");
    list.append(none, ...Object.entries(EXAMPLES).map(([value, text]) => h("option", { value }, text)));
    const input = h("input", { type: "file", class: "doctor-input", "aria-label": `${title}: from this device` });
    const element = h(
      "div",
      { class: "doctor-chooser", role: "group", "aria-label": title },
      h("p", { class: "doctor-chooser-title" }, title),
      list,
      h("label", { class: "doctor-file" }, input, h("span", {}, "Open a file of your own")),
      h("p", { class: "doctor-hint" }, "or drop one here. It stays on this device: nothing is uploaded."),
    );
    const example = async (name, remember = true) => {
      list.value = name;
      state[key] = name;
      if (remember) write(lab.name, state);
      try {
        await open({ name: `${name}.onnx`, file: await blob(new URL(`${name}.onnx`, lab.base)) });
      } catch (error) {
        line.fail(error);
      }
    };
    const own = (file) => {
      if (!file) return undefined;
      list.value = "";
      delete state[key];
      write(lab.name, state);
      return open({ name: plain(file.name), file });
    };
    const open = (it) => {
      chosen[which] = it;
      return then();
    };
    list.addEventListener("change", () => list.value && example(list.value));
    input.addEventListener("change", async () => {
      const [file] = input.files;
      await own(file);
      input.value = ""; // so that the same file can be chosen again
    });
    for (const kind of ["dragenter", "dragover"]) element.addEventListener(kind, (event) => mark(event, true));
    for (const kind of ["dragleave", "drop"]) element.addEventListener(kind, (event) => mark(event, false));
    element.addEventListener("drop", (event) => own(event.dataTransfer.files[0]));
    function mark(event, over) {
      event.preventDefault();
      element.classList.toggle("doctor-over", over);
    }
    return { element, example };
  }

  async function examine() {
    const mine = ++turns.examine;
    const { name, file } = chosen.first;
    said.say(`${name} is examined …`);
    result.replaceChildren();
    differences.replaceChildren();
    saidOfTwo.say("");
    turns.compare += 1;
    try {
      const found = await ask("examine", [file], catalogue);
      if (mine !== turns.examine) return;
      said.say(headline(name, found.findings));
      result.replaceChildren(...report(found, SITE), ...(found.facts.nodes ? [viewer(file)] : []));
      if (chosen.second) await compare();
    } catch (error) {
      if (mine === turns.examine) said.fail(error);
    }
  }

  async function compare() {
    const mine = ++turns.compare;
    saidOfTwo.say("The two files are compared …");
    differences.replaceChildren();
    try {
      const { first: a, second: b } = chosen;
      const found = await ask("compare", [a.file, b.file], catalogue, { names: [a.name, b.name] });
      if (mine !== turns.compare) return;
      const { words, elements } = comparison(found, a.name, b.name);
      saidOfTwo.say(words);
      differences.replaceChildren(...elements);
    } catch (error) {
      if (mine === turns.compare) saidOfTwo.fail(error);
    }
  }

  function viewer(file) {
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(file);
    const page = new URL("netron/index.html", SITE);
    // The viewer adds `?…` to the address, which that of a file in memory cannot have; behind `#` it does no harm.
    page.search = new URLSearchParams({ url: `${address}#`, identifier: "model.onnx" });
    return h("p", {}, h("a", { class: "lab-button", href: page.href, target: "_blank" }, "Open it in the viewer (a new tab)"));
  }
}

/** Of a state in the address, what names an example. */
function known(state) {
  return Object.fromEntries(Object.entries(state).filter(([, name]) => Object.hasOwn(EXAMPLES, name)));
}

function headline(name, findings) {
  const counts = ["error", "warning", "note"].map((severity) => [severity, findings.filter((f) => f.severity === severity).length]);
  const parts = counts.filter(([, n]) => n).map(([severity, n]) => `${n} ${severity}${n > 1 ? "s" : ""}`);
  return `${name}: ${parts.join(", ") || "nothing found"}.`;
}

async function json(url) {
  return (await blob(url)).text().then(JSON.parse);
}

async function blob(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The file ${url.pathname.split("/").pop()} could not be loaded (${answer.status}): load the page again.`);
  return answer.blob();
}

// Starts the labs of a page: `<div class="lab" data-lab="classify">…</div>`. A lab is loaded when it comes near the screen,
// or when the address speaks of it; nobody who only reads loads more than this file.

import { isNamed, onChange, read, write } from "./state.js";
import { h, sentence } from "./ui.js";

const NEAR = "600px"; // before a lab comes into view

function start() {
  const labs = [...document.querySelectorAll("div.lab[data-lab]")];
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => mountOnce(entry.target)),
    { rootMargin: NEAR },
  );
  for (const element of labs) {
    watcher.observe(element);
    if (isNamed(element.dataset.lab)) goTo(element);
  }
  addEventListener("hashchange", () => labs.filter((one) => isNamed(one.dataset.lab)).slice(0, 1).forEach(goTo));
  forPrint(labs);
}

const mounted = new WeakSet();

// The lab draws into a box of its own, above the text alternative, which is closed now: it says the same in words.
async function mountOnce(element) {
  if (mounted.has(element)) return;
  mounted.add(element);
  const name = element.dataset.lab;
  const alternative = element.querySelector("details.lab-alternative");
  const root = h("div", { class: "lab-body" });
  element.insertBefore(root, alternative);
  try {
    const base = new URL(`../${name}/`, import.meta.url);
    const { mount } = await import(new URL("lab.js", base));
    const lab = { name, base, state: read(name), save: (state) => write(name, state), onState: (f) => onChange(name, f) };
    await mount(root, lab);
    if (alternative) alternative.open = false;
    element.dataset.mounted = "";
  } catch (error) {
    console.error(error);
    root.replaceChildren(
      h("p", { class: "lab-status", "data-state": "error", role: "status" }, `The lab did not start: ${sentence(error)}`),
    );
  }
}

async function goTo(element) {
  await mountOnce(element);
  element.scrollIntoView({ block: "start" });
}

// On paper, the text alternative is shown.
function forPrint(labs) {
  const closed = new Set();
  const all = () => labs.flatMap((lab) => [...lab.querySelectorAll("details.lab-alternative")]);
  addEventListener("beforeprint", () => {
    for (const one of all().filter((alternative) => !alternative.open)) {
      closed.add(one);
      one.open = true;
    }
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    closed.clear();
  });
}

start();

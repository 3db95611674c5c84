// Brings the labs of a page to life when they come near the window: `<div class="lab" data-lab="classify">`.

import { h } from "./ui.js";

const LABS = new URL("../", import.meta.url); // `_static/labs/`
const NEAR = "400px";

const styles = {}; // address → promise

function style(path) {
  const href = new URL(path, LABS).href;
  styles[href] ??= new Promise((done) => {
    const link = h("link", { rel: "stylesheet", href, onload: done, onerror: done });
    document.head.append(link);
  });
  return styles[href];
}

async function start(root) {
  const name = root.dataset.lab;
  const place = h("div", { class: "lab-body" }, h("p", { class: "lab-status" }, "The lab is loading …"));
  root.querySelector(".lab-words").before(place);
  try {
    const [{ mount }] = await Promise.all([import(new URL(`${name}/lab.js`, LABS)), style("kit/graph.css"), style(`${name}/lab.css`)]);
    place.replaceChildren();
    await mount(place, { name, base: new URL(`files/${name}/`, LABS).href });
    root.querySelector(".lab-words").open = false;
    root.dataset.ready = "yes";
  } catch (error) {
    console.warn(error);
    place.replaceChildren(h("p", { class: "lab-status" }, `This lab did not start: ${error.message} What it shows stands below, in words.`));
    root.querySelector(".lab-words").open = true;
  }
}

const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      start(target);
    }
  },
  { rootMargin: NEAR },
);
for (const root of document.querySelectorAll("div.lab[data-lab]")) near.observe(root);

// An address with a lab's state leads to the lab, as one with its name alone does without help.
const named = location.hash.slice(1).split("?")[0];
if (named && location.hash.includes("?")) document.getElementById(named)?.scrollIntoView();

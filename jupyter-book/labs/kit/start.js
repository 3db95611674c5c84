// Brings the labs of a page to life when they come near the window: `<div class="lab" data-lab="classify">`.

import { parts } from "./state.js";
import { addStyle } from "./style.js";
import { h } from "./ui.js";

const LABS = new URL("../", import.meta.url); // `_static/labs/`
const NEAR = "400px";

async function start(root) {
  const name = root.dataset.lab;
  const place = h("div", { class: "lab-body" }, h("p", { class: "lab-status" }, "The lab is loading …"));
  root.querySelector(".lab-words").before(place);
  try {
    const [{ mount }] = await Promise.all([import(new URL(`${name}/lab.js`, LABS)), addStyle(`${name}/lab.css`, LABS)]);
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
const all = [...document.querySelectorAll("div.lab[data-lab]")];
for (const root of all) near.observe(root);

// An address with a lab's state leads to the lab. One that is changed in the same page is taken anew.
const named = parts()[0]?.[0];
all.find((root) => root.dataset.lab === named)?.scrollIntoView();
addEventListener("hashchange", () => parts().length && location.reload());

// On paper a lab is told in words.
const closed = () => all.map((root) => root.querySelector(".lab-words")).filter((words) => !words.open);
let opened = [];
addEventListener("beforeprint", () => (opened = closed()).forEach((words) => (words.open = true)));
addEventListener("afterprint", () => opened.forEach((words) => (words.open = false)));

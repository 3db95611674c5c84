// The search page: terms of the glossary and error messages stand above what the book's own search finds.

import { rank } from "./match.js";

const MOST = 4; // terms
const asked = new URLSearchParams(location.search).get("q")?.trim() ?? "";

function link(root, { title, text, page }) {
  const item = document.createElement("li");
  const target = Object.assign(document.createElement("a"), { href: root + page, textContent: title });
  item.append(target, Object.assign(document.createElement("p"), { textContent: text.length > 180 ? `${text.slice(0, 180)} …` : text }));
  return item;
}

function termsFor(terms) {
  const low = asked.toLowerCase();
  const near = ({ title }) => (title.toLowerCase() === low ? 0 : title.toLowerCase().startsWith(low) ? 1 : title.toLowerCase().includes(low) ? 2 : 3);
  return terms.filter((term) => near(term) < 3).sort((one, other) => near(one) - near(other)).slice(0, MOST);
}

export async function showFirst(root) {
  if (!asked) return;
  const { terms, errors } = await (await fetch(`${root}_static/reading/index.json`)).json();
  const found = rank(errors.map(({ text }) => text), asked, { most: 4, least: 0.35 }).map(({ index }) => errors[index]);
  const place = Object.assign(document.createElement("div"), { className: "search-first" });
  for (const [title, entries] of [["Terms", termsFor(terms)], ["Error messages", found]]) {
    if (!entries.length) continue;
    const list = document.createElement("ul");
    list.append(...entries.map((entry) => link(root, entry)));
    place.append(Object.assign(document.createElement("h2"), { textContent: title }), list);
  }
  if (place.childElementCount) document.getElementById("search-results").before(place);
}

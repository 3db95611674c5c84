// What differs between two files, as elements of the page.

import { h, table } from "../kit/ui.js";
import { differences } from "./diff.js";
import { count } from "./words.js";

const MOST = 30; // lines of a list

/** {words, elements} for what `diff` gives. */
export function comparison(found, before, after) {
  const number = differences(found);
  const words = number ? `From ${before} to ${after}: ${count(number, "difference")}.` : `${before} and ${after} hold the same model.`;
  const { nodes, tensors } = found;
  const elements = [
    changes("What the file says of itself", found.header),
    changes("Inputs and outputs", found.values),
    list("Nodes added", nodes.added, node),
    list("Nodes removed", nodes.removed, node),
    list("Nodes changed", nodes.changed, (one) => [...node(one), ": ", one.changes.join("; ")]),
    list("Stored tensors added", tensors.added, tensor),
    list("Stored tensors removed", tensors.removed, tensor),
    list("Stored tensors renamed", tensors.renamed, (one) => [...tensor(one), ": ", one.change]),
    list("Stored tensors changed", tensors.changed, (one) => [...tensor(one), ": ", one.change]),
  ];
  return { words, elements: elements.filter(Boolean) };
}

const node = ({ op, name, graph }) => [h("b", {}, op), " ", h("code", {}, name), graph ? ` in ${graph}` : ""];
const tensor = ({ name, kind }) => [h("code", {}, name), ` ${kind}`];

function changes(title, rows) {
  if (!rows.length) return null;
  const lines = rows.slice(0, MOST).map(({ what, before, after }) => [what, before ?? "—", after ?? "—"]);
  return h("section", {}, h("p", { class: "doctor-part" }, title), table(["", "before", "after"], lines), rest(rows));
}

function list(title, items, show) {
  if (!items.length) return null;
  return h(
    "section",
    { "aria-label": title },
    h("p", { class: "doctor-part" }, `${title} (${items.length})`),
    h("ul", {}, items.slice(0, MOST).map((item) => h("li", {}, show(item)))),
    rest(items),
  );
}

const rest = (items) => (items.length > MOST ? h("p", { class: "doctor-small" }, `And ${(items.length - MOST).toLocaleString("en")} more.`) : "");

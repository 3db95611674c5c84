// What was found in a file, as elements of the page.

import { h } from "../kit/ui.js";
import { placesText } from "./words.js";

const MARKS = { error: "✗", warning: "!", note: "·" };

/** Elements for what `examine` gives. site: the address of the book. */
export function report({ facts, findings, notExamined }, site) {
  const line = Object.entries(facts).map(([name, value]) => h("span", {}, `${name} `, h("b", {}, value)));
  const elements = line.length ? [h("p", { class: "doctor-facts" }, line)] : [];
  if (findings.length) elements.push(h("ol", { class: "doctor-findings" }, findings.map((one) => item(one, site))));
  if (notExamined.length) {
    elements.push(h("p", { class: "doctor-small" }, "Not examined:"), h("ul", { class: "doctor-small" }, notExamined.map((text) => h("li", {}, text))));
  }
  return elements;
}

function item(found, site) {
  const where = placesText(found);
  const rows = [
    ...(where ? [["where", where]] : []),
    ["cause", found.cause],
    ["cure", found.cure],
    ["lesson", h("a", { href: new URL(found.lesson.page, site).href }, found.lesson.name)],
  ];
  const doubtful = found.severity === "error" && found.runtime_decides;
  return h(
    "li",
    { class: "doctor-finding", "data-severity": found.severity, "data-code": found.code },
    h("p", { class: "doctor-title" }, h("span", { class: "doctor-severity" }, `${MARKS[found.severity]} ${found.severity}`), h("strong", {}, found.title), h("code", {}, found.code)),
    h("dl", {}, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    doubtful ? h("p", { class: "doctor-small" }, "This page did not load the file with ONNX Runtime. If ONNX Runtime can load it, take this as a warning.") : "",
  );
}

/** What this page does not look at, in words, and how Python's doctor is called. */
export function leftOut({ left_out: groups, codes, runtime }) {
  const count = Object.values(groups).reduce((sum, group) => sum + Object.keys(group).length, 0);
  const list = ([why, group]) => [
    h("dt", {}, why),
    h("dd", {}, Object.values(group).map((title) => h("span", {}, title))),
  ];
  return h(
    "details",
    { class: "doctor-left-out" },
    h("summary", {}, "What this page does not look at"),
    h(
      "p",
      {},
      `This page looks for ${Object.keys(codes).length} findings that the bytes of one file show. ${count} more need Python's doctor, `,
      h("code", {}, "python -m course_utils.doctor model.onnx"),
      `. Operators and opsets are compared with what ONNX Runtime ${runtime.version} takes.`,
    ),
    h("dl", {}, Object.entries(groups).flatMap(list)),
  );
}

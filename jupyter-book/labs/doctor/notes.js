// What the file tells besides the model: notes of the exporter, paths of the machine that built it.
// As course_utils/diagnosis/findings/metadata.py has it.

import { innerGraphs } from "./patient.js";
import { amount, finding, place, plain } from "./words.js";

/** Paths in notes, and the weight of the notes. */
export function* notes(patient) {
  const T = patient.tables.metadata;
  const path = new RegExp(T.PATH, "gu");
  let total = 0;
  const found = [];
  for (const [where, text] of texts(patient.model)) {
    total += [...text].length;
    const paths = plain(text.slice(0, T.READ), null).matchAll(path);
    const telling = [...paths].map((m) => m[1] || m[2] || m[0]).find((one) => tells(one, T));
    if (telling) found.push([where, telling]);
  }
  if (found.length) {
    // In a stack trace, the outer frames are those of the packages; the shortest path is the most telling one.
    const example = found.map(([, one]) => one).reduce((a, b) => (b.length < a.length ? b : a));
    const text = `Notes name source files or folders, such as '${plain(example)}'. Users and projects can be read from such names.`;
    yield finding("paths-of-a-machine", text, found.map(([at]) => at));
  }
  if (total > 64 * 1024 && total > Math.floor(patient.size / 5)) {
    yield finding("heavy-notes", `${amount(total)} of the file's ${amount(patient.size)} are notes, such as stack traces.`);
  }
}

/** Whether a path tells something of a person or a project. */
function tells(path, T) {
  const simple = path.replaceAll("\\\\", "/").replaceAll("\\", "/");
  const begins = (starts) => [starts].flat().some((start) => simple.startsWith(start));
  if (begins(T.EVERYWHERE)) return false;
  const named = (begins(T.PERSONAL) && !begins(T.ROBOT)) || simple.includes(":/Users/");
  return named || !T.PACKAGES.some((folder) => simple.includes(folder));
}

/** Every free text of the model, with the place where it stands. */
function* texts(model) {
  yield* of(place("file", "the model's own notes"), model);
  const waiting = [["", model.graph], ...model.functions.map((f) => [f.name ?? "", f])];
  while (waiting.length) {
    const [label, graph] = waiting.pop();
    yield* of(place("graph", graph.name ?? ""), graph);
    const isGraph = Boolean(graph.initializer); // a function's inputs and outputs are names alone
    for (const value of [...graph.value_info, ...(isGraph ? [...graph.input, ...graph.output, ...graph.initializer] : [])]) {
      yield* of(place("tensor", value.name ?? "", null, label), value);
    }
    for (const [index, node] of graph.node.entries()) {
      yield* of(place("node", node.name ?? "", index, label), node);
      for (const [, inner] of innerGraphs(node)) waiting.push([graph.name ?? "", inner]);
    }
  }
}

function* of(where, thing) {
  if (thing.doc_string) yield [where, thing.doc_string];
  for (const entry of thing.metadata_props) yield [where, entry.value ?? ""];
}

// Neighbours that could be one node. As course_utils/diagnosis/findings/fusion.py has it.

import { isOp } from "./patient.js";
import { normalisesByBatch } from "./training.js";
import { count, finding } from "./words.js";

/** The one node that reads a tensor; undefined where there are several, or it is an output. */
function onlyReader(scope, name) {
  const readers = scope.readers.get(name) ?? [];
  return readers.length === 1 && !scope.outputNames.has(name) && !scope.innerReads.has(name) ? readers[0] : undefined;
}

export function* unfused(patient) {
  const found = [];
  for (const [scope, index, node] of patient.eachNode()) {
    if (!isOp(node, ["Conv", "ConvTranspose"]) || !node.output.length) continue;
    const after = scope.nodes[onlyReader(scope, node.output[0])];
    if (!after || !isOp(after, ["BatchNormalization"]) || normalisesByBatch(after, scope.version(node) || 1)) continue;
    const stored = [...node.input.slice(1), ...after.input.slice(1)].filter(Boolean);
    if (node.input.length > 1 && stored.every((name) => patient.stored(scope, name))) found.push(scope.place(index));
  }
  if (found.length) yield finding("batchnorm-not-folded", `${count(found.length, "pair")} with constant weights.`, found);
}

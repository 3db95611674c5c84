// Layers that were exported as they are in training. As course_utils/diagnosis/findings/training.py has it.

import { attribute, isOp } from "./patient.js";
import { count, finding } from "./words.js";

export function* training(patient) {
  const [dropout, norm, without] = [[], [], []];
  for (const [scope, index, node] of patient.eachNode()) {
    const version = scope.version(node) || 1;
    if (isOp(node, ["Dropout"]) && drops(patient, scope, node, version)) dropout.push(scope.place(index));
    if (!isOp(node, ["BatchNormalization"])) continue;
    if (fromTheData(patient, scope, node)) without.push(scope.place(index));
    else if (normalisesByBatch(node, version)) norm.push(scope.place(index));
  }
  if (dropout.length) {
    const text = `Values are set to zero at random, in ${count(dropout.length, "node")}: each run gives other numbers.`;
    yield finding("dropout-in-training", text, dropout);
  }
  if (norm.length) {
    const text = `Mean and variance come from the batch that is fed, in ${count(norm.length, "node")}: a result depends on its neighbours.`;
    yield finding("batchnorm-in-training", text, norm);
  }
  if (without.length) {
    const text =
      `Nodes before it compute mean and variance of the data that is fed, for ${count(without.length, "node")}: ` +
      `a result depends on its neighbours in the batch. So a layer with track_running_stats=False is exported.`;
    yield finding("batchnorm-without-statistics", text, without);
  }
}

/** Whether mean or variance are computed from what the node itself is fed. */
function fromTheData(patient, scope, node) {
  const statistics = node.input.slice(3, 5);
  if (node.input.length < 5 || statistics.some((name) => patient.stored(scope, name))) return false;
  const data = sources(patient, scope, node.input[0]);
  return statistics.some((name) => scope.producer.has(name) && [...sources(patient, scope, name)].some((n) => data.has(n)));
}

/** The tensors of one graph that the values of a tensor depend on, itself included; no weights, and not what only gives its
 * shape. */
function sources(patient, scope, start) {
  const found = new Set();
  const waiting = [start];
  while (waiting.length) {
    const name = waiting.pop();
    if (!name || found.has(name) || scope.initializers.has(name) || patient.stored(scope, name)) continue;
    found.add(name);
    const producer = scope.nodes[scope.producer.get(name)];
    if (producer && !isOp(producer, ["Shape", "Size"])) waiting.push(...producer.input);
  }
  return found;
}

const some = (value) => value.data.some((x) => Number(x) !== 0);

/** Whether a Dropout sets values to zero at random. */
function drops(patient, scope, node, version) {
  if (version < 7) return !attribute(node, "is_test", 0) && attribute(node, "ratio", 0.5) > 0; // 0 by default
  if (version < 12 || node.input.length < 3) return false; // 7 to 11 know no training; later ones do by their third input
  const mode = patient.value(scope, node.input[2]);
  const ratio = node.input[1] ? patient.value(scope, node.input[1]) : null;
  return mode !== null && some(mode) && !(ratio && !some(ratio));
}

export function normalisesByBatch(node, version) {
  if (version < 7) return !attribute(node, "is_test", 0);
  if (version < 14) return node.output.filter(Boolean).length > 1;
  return Boolean(attribute(node, "training_mode", 0));
}

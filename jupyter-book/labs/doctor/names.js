// The names of tensors: each written once, and before it is read. As course_utils/diagnosis/findings/names.py has it.

import { count, finding, place, placeText, plain } from "./words.js";

const SHOWN = 6; // nodes of a circle

export function* names(patient) {
  const found = { "not-sorted": [], "tensor-undefined": [], "tensor-written-twice": [], "output-undefined": [] };
  for (const scope of patient.scopes) {
    const early = namesOf(scope, found);
    const circle = early.length ? circleOf(scope) : [];
    if (circle.length) {
      const shown = [...circle.slice(0, SHOWN).map((i) => plain(scope.place(i).name)), ...(circle.length > SHOWN ? ["…"] : [])];
      const way = [...shown, shown[0]].join(" → ");
      yield finding("cycle", `${count(circle.length, "node")}: ${way}.`, circle.map((i) => scope.place(i)));
    } else {
      found["not-sorted"].push(...early.map(([i, name]) => [scope.place(i), name]));
    }
  }
  const causes = {
    "not-sorted": (where, name) => `${placeText(where)} reads '${name}', which a node behind it writes.`,
    "tensor-undefined": (where, name) => `${placeText(where)} reads '${name}'.`,
    "tensor-written-twice": (where, name) => `'${name}' is written more than once.`,
    "output-undefined": (where, name) => `'${name}' is listed as an output.`,
  };
  for (const [code, items] of Object.entries(found)) {
    if (!items.length) continue;
    const [where, name] = items[0];
    yield finding(code, causes[code](where, plain(name)), items.map(([at]) => at));
  }
}

/** Adds what is wrong with the names of one graph. Returns [node, name] where a node reads what a later one writes. */
function namesOf(scope, found) {
  const seen = new Set();
  const repeated = new Set(scope.inputs.filter((name) => seen.size === seen.add(name).size));
  for (const name of repeated) found["tensor-written-twice"].push([place("input", name, null, scope.label), name]);
  const defined = new Set([...scope.inputs, ...scope.initializers.keys(), ...scope.sparse]);
  const early = [];
  scope.nodes.forEach((node, index) => {
    const direct = new Set(node.input);
    for (const name of readsOf(scope, index)) {
      if (!name || defined.has(name) || outside(scope, name)) continue;
      if (scope.producer.has(name)) early.push([index, name]);
      // What a graph inside this node lacks is found when that graph has its turn.
      else if (direct.has(name)) found["tensor-undefined"].push([scope.place(index), name]);
    }
    for (const name of node.output) {
      if (!name) continue;
      if (defined.has(name)) found["tensor-written-twice"].push([scope.place(index), name]);
      defined.add(name);
    }
  });
  for (const name of scope.outputs) {
    if (!defined.has(name)) found["output-undefined"].push([place("output", name, null, scope.label), name]);
  }
  return early;
}

/** The names that a node reads, also in the graphs inside it. */
function readsOf(scope, index) {
  return new Set([...scope.nodes[index].input, ...(scope.children.get(index) ?? []).flatMap((child) => child.free())]);
}

function outside(scope, name) {
  for (let here = scope.outer; here; here = here.outer) if (here.has(name)) return true;
  return false;
}

/** The nodes whose results a node reads, also in the graphs inside it. */
export function before(scope, index) {
  return [...readsOf(scope, index)].filter((name) => scope.producer.has(name)).map((name) => scope.producer.get(name));
}

/** One circle of nodes, in the order of the data; empty where there is none. Without recursion: graphs can be long. */
function circleOf(scope) {
  const ON_THE_WAY = 1;
  const DONE = 2;
  const state = new Uint8Array(scope.nodes.length);
  for (let start = 0; start < scope.nodes.length; start += 1) {
    if (state[start]) continue; // gone through already
    const way = [[start, before(scope, start)]];
    state[start] = ON_THE_WAY;
    while (way.length) {
      const [node, rest] = way.at(-1);
      const earlier = rest.pop();
      if (earlier === undefined) {
        state[node] = DONE;
        way.pop();
      } else if (state[earlier] === ON_THE_WAY) {
        const path = way.map(([i]) => i);
        return path.slice(path.indexOf(earlier)).reverse();
      } else if (!state[earlier]) {
        state[earlier] = ON_THE_WAY;
        way.push([earlier, before(scope, earlier)]);
      }
    }
  }
  return [];
}

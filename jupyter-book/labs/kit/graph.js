// A graph as a drawing in layers from top to bottom: what the layout is (`layoutGraph`, without a page), the drawing
// (`drawGraph`), and the same in words (`describeGraph`). `graph` is the `graph` of what `readModel` gives.

import { addStyle } from "./style.js";
import { Graph, layout } from "./vendor/dagre.js";

export const MOST = 300; // points: more is no picture that one reads, and the layout takes seconds
const LETTER = 7.4; // pixels, of the larger text
const SMALL = 6.2; // of the smaller text
const LINE = 15; // from one line to the next
const LONGEST = 26; // letters of a name
const SVG = "http://www.w3.org/2000/svg";

/**
 * Points and arrows of a graph. A point is `{id, kind, title, names, reads, writes}`: kind is "input", "node" or "output";
 * the id of node 3 is "node 3". An arrow is `{from, to, tensor}`. Weights are left out.
 */
export function pointsOf(graph) {
  const held = new Set(graph.initializer.map((tensor) => tensor.name));
  const inputs = graph.input.map((info) => info.name).filter((name) => !held.has(name));
  const points = inputs.map((name) => point("input", name, name, [], [name]));
  const maker = new Map(points.map(({ id, title }) => [title, id]));
  graph.node.forEach((node, index) => {
    const writes = node.output.filter(Boolean);
    const reads = [...new Set(readsOf(node))].filter((name) => !held.has(name));
    points.push(point("node", index, node.op_type ?? "?", reads, writes));
    for (const name of writes) maker.set(name, `node ${index}`);
  });
  for (const { name } of graph.output) points.push(point("output", name, name, [name], []));
  const arrows = points.flatMap(({ id, reads }) =>
    reads.filter((name) => maker.has(name) && maker.get(name) !== id).map((tensor) => ({ from: maker.get(tensor), to: id, tensor })),
  );
  return { points, arrows };
}

const point = (kind, name, title, reads, writes) => ({ id: `${kind} ${name}`, kind, title, reads, writes });

/** Names that a node reads; what its branches or its loop read from outside, too. */
function readsOf(node) {
  const inside = node.attribute.flatMap(({ g, graphs }) => [g, ...(graphs ?? [])]).filter(Boolean);
  return [...node.input.filter(Boolean), ...inside.flatMap((graph) => graph.node.flatMap(readsOf))];
}

/**
 * Where everything lies: `{width, height, points, arrows}`, each point with x, y (its middle), width and height, each
 * arrow with its `points`. detail(id) gives lines of smaller text for a point, or nothing. Throws an Error with one
 * sentence for a graph that is too large to draw.
 */
export function layoutGraph(graph, { detail = () => [] } = {}) {
  const { points, arrows } = pointsOf(graph);
  if (points.length > MOST) throw new Error(`A graph of ${points.length} points is not drawn here; ${MOST} is the most.`);
  const plan = new Graph({ multigraph: true });
  plan.setGraph({ rankdir: "TB", nodesep: 12, ranksep: 24, marginx: 6, marginy: 6 });
  for (const one of points) {
    one.detail = detail(one.id).filter(Boolean);
    one.label = short(one.title);
    one.width = Math.max(44, Math.ceil(Math.max(one.label.length * LETTER, ...one.detail.map((line) => line.length * SMALL))) + 16);
    one.height = 28 + LINE * one.detail.length;
    plan.setNode(one.id, { width: one.width, height: one.height });
  }
  arrows.forEach(({ from, to }, index) => plan.setEdge(from, to, {}, String(index)));
  layout(plan);
  for (const one of points) ({ x: one.x, y: one.y } = plan.node(one.id));
  arrows.forEach((arrow, index) => (arrow.points = plan.edge(arrow.from, arrow.to, String(index)).points));
  const { width = 0, height = 0 } = plan.graph();
  return { width: Math.max(0, Math.ceil(width)), height: Math.max(0, Math.ceil(height)), points, arrows };
}

const short = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

/** One line of text for each node, in the order of the file. */
export function describeGraph(graph) {
  const list = (names) => names.join(" and ") || "nothing";
  const nodes = pointsOf(graph).points.filter(({ kind }) => kind === "node");
  return nodes.map(({ title, reads, writes }, at) => `${at + 1}. ${title} reads ${list(reads)} and writes ${list(writes)}.`);
}

/**
 * The drawing, an SVG element. Options: `label` of the whole; `detail(id)`, lines of smaller text in a point; `marks(id)`, a word
 * such as "fused", which gives its colour (graph.css) and stands in what a screen reader says; `select`, `highlight` as in
 * `updateGraph`; `onSelect(id)`, called when a node is clicked or Enter is pressed on it. Arrow keys go from node to node.
 */
export function drawGraph(graph, { label = "Graph", detail, marks = () => "", select, highlight, onSelect } = {}) {
  addStyle("graph.css", import.meta.url);
  const drawn = layoutGraph(graph, { detail });
  const size = { width: drawn.width, height: drawn.height, viewBox: `0 0 ${drawn.width} ${drawn.height}` };
  const svg = element("svg", { class: "lab-graph", role: "group", "aria-label": label, ...size });
  for (const { from, to, points } of drawn.arrows) {
    const line = element("g", { class: "lab-graph-arrow", "data-from": from, "data-to": to, "aria-hidden": "true" });
    line.append(element("path", { d: path(points) }), element("path", { class: "lab-graph-head", d: head(points) }));
    svg.append(line);
  }
  for (const one of drawn.points) svg.append(box(one, marks(one.id), Boolean(onSelect)));
  if (onSelect) listen(svg, onSelect);
  updateGraph(svg, { select, highlight });
  return svg;
}

/** Show another node as selected (an id or null), and others as belonging to it (`highlight`, ids; the rest is dimmed). */
export function updateGraph(svg, { select = null, highlight = [] }) {
  const lit = new Set(highlight);
  const buttons = [...svg.querySelectorAll("[role=button]")];
  svg.classList.toggle("lab-graph-dims", lit.size > 0);
  for (const one of svg.querySelectorAll("[data-id]")) one.classList.toggle("lab-graph-lit", lit.has(one.dataset.id));
  const reached = buttons.find((one) => one.dataset.id === select) ?? buttons.find((one) => one.tabIndex === 0) ?? buttons[0];
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.id === select));
    button.setAttribute("tabindex", button === reached ? "0" : "-1");
  }
}

function box({ id, kind, label, title, detail, reads, writes, x, y, width, height }, mark, live) {
  const g = element("g", { class: `lab-graph-${kind}`, "data-id": id, transform: `translate(${x} ${y})` });
  if (mark) g.dataset.mark = mark;
  if (kind === "node" && live) {
    // It begins with what is seen, for those who speak to the page.
    const seen = [title, ...detail].join(" ");
    const says = [seen, detail.includes(mark) ? "" : mark, `reads ${reads.join(", ") || "nothing"}`, `writes ${writes.join(", ")}`];
    g.setAttribute("role", "button");
    g.setAttribute("aria-label", says.filter(Boolean).join("; "));
  }
  g.append(element("rect", { x: -width / 2, y: -height / 2, width, height, rx: kind === "node" ? 6 : height / 2 }));
  const top = 1 - (detail.length * LINE) / 2;
  g.append(element("text", { y: top }, label));
  detail.forEach((line, at) => g.append(" ", element("text", { y: top + LINE * (at + 1), class: "lab-graph-detail" }, line)));
  return g;
}

function listen(svg, onSelect) {
  const hit = (event) => event.target.closest("[role=button]");
  svg.addEventListener("click", (event) => hit(event) && onSelect(hit(event).dataset.id));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const at = hit(event);
    if (!at || !(step || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault(); // a space or an arrow would scroll the page
    if (!step) return onSelect(at.dataset.id);
    const buttons = [...svg.querySelectorAll("[role=button]")];
    const next = buttons[buttons.indexOf(at) + step];
    if (!next) return;
    at.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

/** A line through the points of an arrow, with rounded corners. */
function path(points) {
  const [first, ...rest] = points;
  const last = rest.at(-1);
  let d = `M${at(first)}`;
  rest.slice(0, -1).forEach((point, index) => {
    const next = rest[index + 1];
    const end = next === last ? last : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    d += `Q${at(point)} ${at(end)}`;
  });
  return rest.length > 1 ? d : `${d}L${at(last)}`;
}

function head(points) {
  const [before, tip] = points.slice(-2);
  const angle = Math.atan2(tip.y - before.y, tip.x - before.x);
  const corner = (turn) => at({ x: tip.x - 8 * Math.cos(angle + turn), y: tip.y - 8 * Math.sin(angle + turn) });
  return `M${at(tip)}L${corner(0.4)}L${corner(-0.4)}Z`;
}

const at = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;

function element(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

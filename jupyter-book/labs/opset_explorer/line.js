// The opsets as a line, with a dot for each version of an operator.

const SVG = "http://www.w3.org/2000/svg";
const [STEP, LEFT, MIDDLE, HEIGHT] = [20, 14, 14, 46];

/** An SVG. editions: of one operator. newest: the last opset of the line. */
export function line(editions, newest) {
  const width = 2 * LEFT + STEP * (newest - 1);
  const x = (opset) => LEFT + STEP * (opset - 1);
  const words = editions.map(({ opset, event }) => `${event} with ${opset}`).join(", ");
  const svg = element("svg", { class: "opset-line", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Opsets 1 to ${newest}: ${words}` });
  const last = editions.at(-1).event === "withdrawn" ? editions.at(-1).opset : newest;
  svg.append(element("line", { x1: x(1), x2: x(newest), y1: MIDDLE, y2: MIDDLE, class: "opset-axis" }));
  svg.append(element("line", { x1: x(editions[0].opset), x2: x(last), y1: MIDDLE, y2: MIDDLE, class: "opset-life" }));
  for (const { opset, event } of editions) svg.append(element("circle", { cx: x(opset), cy: MIDDLE, r: 6, class: `opset-dot opset-${event}` }));
  for (let opset = 1; opset <= newest; opset++) {
    const text = element("text", { x: x(opset), y: HEIGHT - 8, class: "opset-number" });
    text.textContent = opset;
    svg.append(text);
  }
  return svg;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

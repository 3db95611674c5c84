// A picture as the files get it, and an answer beside PyTorch's.

import { h } from "../kit/ui.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 240; // of the drawing of an answer, in units of its own
const HIGH = 80;

/** A figure of one picture: pixels from 0 to 1, dark on light as the theme has it. */
export function picture(pixels, height, width, name) {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": `${name}, ${height} rows of ${width} pixels` });
  canvas.style.width = `${width * 2.5}px`;
  const context = canvas.getContext("2d");
  const data = context.createImageData(width, height);
  pixels.forEach((value, at) => data.data.set([255 * value, 255 * value, 255 * value, 255], 4 * at));
  context.putImageData(data, 0, 0);
  return h("figure", { class: "sizes-picture" }, canvas, h("figcaption", {}, name));
}

/** Two curves over the columns of a picture: PyTorch's answer dashed, the file's answer (if there is one) drawn through. */
export function curves(torch, answer) {
  const top = Math.max(1, ...torch, ...(answer ?? []));
  const svg = document.createElementNS(SVG, "svg");
  const says = answer ? "The file's answer (line) and PyTorch's (dashed)" : "PyTorch's answer (dashed); there is none of the file";
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${says}, for the first picture.`, class: "sizes-curves" })) {
    svg.setAttribute(name, value);
  }
  const line = (values, kind) => {
    const path = document.createElementNS(SVG, "path");
    const at = (value, i) => `${((i + 0.5) * WIDE) / values.length},${HIGH - 3 - (value / top) * (HIGH - 8)}`;
    path.setAttribute("d", `M${Array.from(values, at).join("L")}`);
    path.setAttribute("class", kind);
    svg.append(path);
  };
  if (answer) line(answer, "sizes-file");
  line(torch, "sizes-torch");
  return svg;
}

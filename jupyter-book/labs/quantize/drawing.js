// The weights as a histogram over the levels, and below it each channel's own range.

import { histogram, range } from "./levels.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, BINS, LINE] = [640, 150, 80, 3];
const [ENDS, BELOW, CHANNELS] = [26, 60, 72]; // below the histogram: two lines of text and the first channel, with room for a phone's letters
const SHOWN = 64; // levels: more are a grey area

/** values: of the weights. found, rule: what `quantized` gave and took. */
export function picture(values, channels, found, rule) {
  const [least, greatest] = range(values);
  const [from, to] = [least * 1.25, greatest * 1.25];
  const at = (value) => ((value - from) / (to - from)) * WIDTH;
  const bins = histogram(values, from, to, BINS);
  const top = Math.sqrt(Math.max(...bins)); // the few large weights are seen, too
  const height = HEIGHT + CHANNELS + channels * LINE;
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "quantize-picture", role: "img", "aria-label": words(values, channels, found, rule) });
  const size = values.length / channels;
  const own = rule.perChannel ? null : [least * rule.low, greatest * rule.high];
  if (own) svg.append(make("rect", { class: "quantize-range", x: at(own[0]), width: at(own[1]) - at(own[0]), y: 0, height: HEIGHT }));
  bins.forEach((count, bin) => {
    const tall = (Math.sqrt(count) / top) * (HEIGHT - 8);
    svg.append(make("rect", { class: "quantize-bar", x: (bin * WIDTH) / BINS + 0.5, width: WIDTH / BINS - 1, y: HEIGHT - tall, height: tall }));
  });
  if (own && 2 ** rule.bits <= SHOWN)
    for (let level = 0; level < 2 ** rule.bits; level++) {
      const x = at((level - found.zeros[0]) * found.scales[0]);
      svg.append(make("line", { class: level === found.zeros[0] ? "quantize-zero" : "quantize-level", x1: x, x2: x, y1: 0, y2: HEIGHT }));
    }
  svg.append(make("text", { class: "quantize-text", x: at(least), y: HEIGHT + ENDS }, least.toFixed(2)));
  svg.append(make("text", { class: "quantize-text", x: at(greatest), y: HEIGHT + ENDS, "text-anchor": "end" }, greatest.toFixed(2)));
  svg.append(make("text", { class: "quantize-text", x: 2, y: HEIGHT + BELOW }, `the range of each of the ${channels} channels`));
  for (let channel = 0; channel < channels; channel++) {
    const [low, high] = range(values.subarray(channel * size, (channel + 1) * size));
    const y = HEIGHT + CHANNELS + channel * LINE;
    svg.append(make("line", { class: "quantize-channel", x1: at(low), x2: at(high), y1: y, y2: y }));
  }
  return svg;
}

function words(values, channels, found, rule) {
  const [least, greatest] = range(values);
  const spread = Array.from({ length: channels }, (_, i) => {
    const [low, high] = range(values.subarray((i * values.length) / channels, ((i + 1) * values.length) / channels));
    return high - low;
  });
  return (
    `${values.length} weights from ${least.toFixed(2)} to ${greatest.toFixed(2)} on ${2 ** rule.bits} levels, ` +
    `${found.scales.length === 1 ? "the same for all channels" : "others for each channel"}. ` +
    `The narrowest channel has a range of ${Math.min(...spread).toFixed(2)}, the widest one of ${Math.max(...spread).toFixed(2)}.`
  );
}

function make(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Small helpers for the page of a lab. No framework: each gives an element, or an object with one.

// An element. attrs: attributes; `class` may be a list, a function is a listener (`onclick`), `false` or null leaves it out;
// a key with a dash or `role` is an attribute, a boolean property such as `checked` or `disabled` is set as one.
export function h(tag, attrs = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (name === "style" && typeof value === "object") {
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else element.setAttribute(name, value === true ? "" : [value].flat().join(" "));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let count = 0;
// An id that no other element of the page has.
export const freshId = (word = "lab") => `${word}-${++count}`;

export const button = (label, onclick, attrs = {}) =>
  h("button", { type: "button", class: "lab-button", onclick, ...attrs }, label);

// A line that screen readers read aloud when it changes.
//   say(text): what is going on. fail(error): one sentence, marked as an error. during(text, work): says the text while the
//   work lasts; an error in it is shown and gives undefined, so that no click ends in silence.
export function statusLine(text = "") {
  const element = h("p", { class: "lab-status", role: "status" }, text);
  let busy = 0;
  const set = (words, state) => {
    element.textContent = words;
    element.dataset.state = state;
  };
  const line = {
    element,
    say: (words) => set(words, "calm"),
    fail: (error) => set(sentence(error), "error"),
    async during(words, work) {
      busy++;
      set(words, "busy");
      try {
        const result = await work();
        if (--busy === 0 && element.dataset.state === "busy") set("", "calm");
        return result;
      } catch (error) {
        busy--;
        line.fail(error);
        return undefined;
      }
    },
  };
  return line;
}

// An error as one sentence with a full stop; the first line of what it says.
export function sentence(error) {
  const [first] = String(error?.message ?? error).trim().split("\n");
  const text = (first || "Something failed, and does not say what").slice(0, 300);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

// A choice of one from a few: radio buttons in a row.
//   options: [{ value, label, hint? }]. onChange(value). Gives { element, value, set(value) }; set does not call onChange.
export function choice({ legend, options, value, onChange = () => {}, hideLegend = false }) {
  const name = freshId("choice");
  const inputs = new Map();
  const labels = options.map((option) => {
    const chosen = () => onChange(option.value);
    const input = h("input", { type: "radio", name, value: option.value, onchange: chosen });
    inputs.set(option.value, input);
    return h("label", { title: option.hint }, input, h("span", {}, option.label));
  });
  const legendOf = h("legend", { class: hideLegend && "lab-hidden" }, legend);
  const element = h("fieldset", { class: "lab-choice" }, legendOf, h("div", { class: "lab-segments" }, labels));
  const set = (wanted) => {
    for (const [key, input] of inputs) input.checked = key === wanted;
  };
  set(value ?? options[0]?.value);
  return {
    element,
    set,
    get value() {
      return [...inputs].find(([, input]) => input.checked)?.[0];
    },
  };
}

// Bars of numbers from 0 to `top`, as a table that screen readers read as one.
//   caption: of the table. labels: one a row. series: [{ name, values, strong? }]. show: number → text.
//   Gives { element, update(series) }; the rows stay, so that bars grow and shrink.
export function bars({ caption, labels, series, top = 1, show = percent, rowHead = "" }) {
  const cells = series.map(() => labels.map(barCell));
  const heads = series.map((one) => h("th", { scope: "col" }, one.name));
  const rows = labels.map((label, row) =>
    h("tr", {}, h("th", { scope: "row" }, label), cells.map((column) => column[row].element)),
  );
  const element = h(
    "table",
    { class: "lab-bars", "data-series": series.length },
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td", {}, rowHead), heads)),
    h("tbody", {}, rows),
  );
  const update = (next) => {
    next.forEach(({ values }, column) => {
      const largest = values ? Math.max(...values) : undefined;
      labels.forEach((_, row) => {
        const value = values?.[row];
        cells[column][row].set(value, value === undefined ? "–" : show(value), value !== undefined && value === largest, top);
      });
    });
  };
  update(series);
  return { element, update };
}

function barCell() {
  const text = h("span", { class: "lab-bar-text" });
  const fill = h("span", { class: "lab-bar-fill" });
  const element = h("td", {}, h("span", { class: "lab-bar", "aria-hidden": "true" }, fill), text);
  const set = (value, words, strongest, top) => {
    text.textContent = words;
    fill.style.setProperty("width", `${(100 * Math.min(Math.max(value ?? 0, 0), top)) / top}%`);
    element.classList.toggle("lab-strongest", strongest);
  };
  return { element, set };
}

// A table. head: texts of the first row. rows: arrays; the first cell of each is its heading. A cell may be an element.
export function table(head, rows, { caption, class: kind } = {}) {
  const row = ([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell)));
  const heads = head.map((text, i) => (text || i ? h("th", { scope: "col" }, text) : h("td")));
  return h(
    "div",
    { class: "lab-scroll", tabindex: "0", role: "region", "aria-label": caption ?? head.filter(Boolean).join(", ") },
    h(
      "table",
      { class: ["lab-table", kind ?? ""] },
      caption && h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads)),
      h("tbody", {}, rows.map(row)),
    ),
  );
}

export const figure = (caption, ...children) =>
  h("figure", { class: "lab-figure" }, ...children, h("figcaption", {}, caption));

export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const bytes = (number) => `${number.toLocaleString("en")} bytes`;
export const milliseconds = (number) => `${number < 10 ? number.toFixed(2) : number.toFixed(1)} ms`;

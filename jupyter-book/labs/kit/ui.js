// The pieces that labs are made of.

/** An element. attributes: `onclick` and the like are listeners; true and false set or leave out. children: nodes, texts, lists. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== "" && child !== undefined && child !== null));
  return element;
}

/** A line that is read aloud when it changes: `say(text)` what is going on, `fail(error)` what went wrong. */
export function status() {
  const element = h("p", { role: "status", class: "lab-status" });
  const set = (text, state) => {
    element.textContent = text;
    element.dataset.state = state;
  };
  return { element, say: (text) => set(text, "calm"), fail: (error) => set(error.message ?? `${error}`, "error") };
}

export function button(label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "lab-button", onclick, ...attributes }, label);
}

/** A control with its name above it. label: text, or a list of texts and nodes. */
export const field = (label, control) => h("label", { class: "lab-field" }, h("span", {}, label), control);

let groups = 0;

/** One of several values, as buttons side by side. options: [[value, label], …]. then: is called with the new value. */
export function choice(label, options, chosen, then) {
  const name = `lab-choice-${++groups}`;
  const one = ([value, text]) =>
    h("label", { class: "lab-option" }, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => then(value) }), h("span", {}, text));
  return h("fieldset", { class: "lab-choice" }, h("legend", {}, label), h("div", { class: "lab-options" }, options.map(one)));
}

/**
 * A table with a bar for each name and series, from 0 to 1. series: titles. more: names of rows below, without bars.
 * Returns the element, `show(series, values, first)` with values or nothing, the highest or number `first` in bold, and `tell(series, row, text)` for the rows below.
 */
export function bars(label, names, series, more = []) {
  const row = (name) => {
    const fills = series.map((_, at) => h("span", { class: `lab-bar-fill lab-series-${at}` }));
    const values = series.map((title) => h("td", { class: "lab-bar-value", "data-series": title }, "–"));
    return { fills, values, element: h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "lab-bar" }, fills), values) };
  };
  const rows = names.map(row);
  const below = more.map(row);
  const heads = series.map((title, at) => h("th", { scope: "col", class: "lab-bar-value" }, h("span", { class: `lab-key lab-series-${at}` }), title));
  const element = h(
    "table",
    { class: "lab-bars" },
    h("caption", {}, label),
    h("thead", {}, h("tr", {}, h("td", {}), h("td", {}), heads)),
    h("tbody", {}, rows.map((one) => one.element)),
    h("tfoot", {}, below.map((one) => one.element)),
  );
  const show = (at, values, first = values ? values.indexOf(Math.max(...values)) : -1) => {
    rows.forEach(({ fills, values: cells }, i) => {
      fills[at].style.width = values ? `${100 * values[i]}%` : "0";
      cells[at].textContent = values ? percent(values[i]) : "–";
      cells[at].classList.toggle("lab-bar-first", i === first);
    });
  };
  const tell = (at, which, text) => (below[which].values[at].textContent = text);
  return { element, show, tell };
}

/** A table. head: texts of the first row. rows: arrays; the first cell of each is its heading. */
export function table(head, rows) {
  const row = ([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell)));
  const heads = head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td")));
  const inside = h("table", { class: "table" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows.map(row)));
  return h("div", { class: "lab-scroll", tabindex: "0", role: "region", "aria-label": head.filter(Boolean).join(", ") }, inside);
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A number with thin spaces between thousands. */
export const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** An error to tell: ONNX Runtime's own words as a quotation, every other one as it is. */
export function refusal(error) {
  return /ERROR_CODE: \d/.test(error.message) ? new Error(`ONNX Runtime refuses: “${words(error)}”`, { cause: error }) : error;
}

/** ONNX Runtime's own words of an error, without what onnxruntime-web puts before them. */
export function words(error) {
  return String(error.message ?? error).replace(/^.*?ERROR_MESSAGE:\s*/s, "").trim();
}

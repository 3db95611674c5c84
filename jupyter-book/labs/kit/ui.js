// The pieces that labs are made of.

/** An element. attributes: `onclick` and the like are listeners; true and false set or leave out. children: nodes, texts, lists. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== "" && child !== undefined));
  return element;
}

/** A line that is read aloud when it changes. */
export function status() {
  const element = h("p", { role: "status", class: "lab-status" });
  return { element, say: (text) => (element.textContent = text) };
}

export function button(label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "lab-button", onclick, ...attributes }, label);
}

let groups = 0;

/** One of several values, as buttons side by side. options: [[value, label], …]. then: is called with the new value. */
export function choice(label, options, chosen, then) {
  const name = `lab-choice-${++groups}`;
  const one = ([value, text]) =>
    h("label", { class: "lab-option" }, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => then(value) }), h("span", {}, text));
  return h("fieldset", { class: "lab-choice" }, h("legend", {}, label), h("div", { class: "lab-options" }, options.map(one)));
}

/** A bar for each name, from 0 to 1. Returns the element and `show(values)`. */
export function bars(label, names) {
  const rows = names.map((name) => {
    const value = h("td", { class: "lab-bar-value" });
    const fill = h("span", { class: "lab-bar-fill" });
    const element = h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "lab-bar" }, fill), value);
    return { element, value, fill };
  });
  const element = h("table", { class: "lab-bars" }, h("caption", {}, label), h("tbody", {}, rows.map((row) => row.element)));
  const show = (values) => {
    const first = values.indexOf(Math.max(...values));
    rows.forEach(({ element: row, value, fill }, i) => {
      fill.style.width = `${100 * values[i]}%`;
      value.textContent = percent(values[i]);
      row.classList.toggle("lab-bar-first", i === first);
    });
  };
  return { element, show };
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A number with thin spaces between thousands. */
export const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

// The least that a lab needs of `kit/ui.js`, for tests of a lab without the kit.

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== ""));
  return element;
}

export function statusLine() {
  const element = h("p", { role: "status", class: "lab-status" });
  const say = (text) => (element.textContent = text);
  return { element, say, fail: (error) => say(error.message) };
}

let groups = 0;

export function choice(legend, options, value, onChange) {
  const name = `choice-${groups++}`;
  const one = ([option, label]) => {
    const input = h("input", { type: "radio", name, value: option, onchange: () => onChange(option) });
    input.checked = option === value;
    return h("label", {}, input, h("span", {}, label));
  };
  return h("fieldset", { class: "lab-choice" }, h("legend", {}, legend), options.map(one));
}

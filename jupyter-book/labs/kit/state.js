// The state of a lab stands in the fragment of the address, so that it can be shared: `#classify?picture=3&model=int8`.
// Of several labs on a page, each has a part of its own: `#classify?picture=3;fusion?level=all`. The one used last is first.

const NAME = /^[a-z][a-z0-9_]*$/;

// The fragment as a Map: name of a lab → object of strings. Another fragment, such as `#recap`, holds no state.
export function parse(fragment) {
  const parts = new Map();
  for (const part of fragment.replace(/^#/, "").split(";")) {
    const [name, query] = halves(part);
    if (query !== undefined && NAME.test(name)) parts.set(name, Object.fromEntries(new URLSearchParams(query)));
  }
  return parts;
}

// The fragment of such a Map, with `#`; empty where no lab has a state. Values that are null, undefined or "" are left out.
export function format(parts) {
  const texts = [];
  for (const [name, object] of parts) {
    const given = Object.entries(object).filter(([, value]) => value !== undefined && value !== null && value !== "");
    if (given.length) texts.push(`${name}?${new URLSearchParams(given)}`); // it writes ";" as %3B
  }
  return texts.length ? `#${texts.join(";")}` : "";
}

// The state of one lab in the address: an object of strings, empty where there is none.
export const read = (name) => parse(location.hash).get(name) ?? {};

// Does the address speak of this lab, with or without a state?
export const isNamed = (name) => parse(location.hash).has(name) || location.hash === `#${name}`;

// Write the state of one lab; the page is not loaded anew, and gets no new entry in the history.
export function write(name, object) {
  const { [name]: _, ...others } = Object.fromEntries(parse(location.hash));
  const fragment = format(new Map([[name, object], ...Object.entries(others)]));
  history.replaceState(history.state, "", fragment || location.pathname + location.search);
}

// Call `changed` with the new state when somebody else changes it: a link, or the address line.
export function onChange(name, changed) {
  let before = JSON.stringify(read(name));
  addEventListener("hashchange", () => {
    const now = JSON.stringify(read(name));
    if (now !== before && isNamed(name)) changed(read(name));
    before = now;
  });
}

function halves(part) {
  const at = part.indexOf("?");
  return at < 0 ? [part, undefined] : [part.slice(0, at), part.slice(at + 1)];
}

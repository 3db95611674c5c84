// The least that a lab needs of `kit/state.js`, for tests of a lab without the kit.

export function read(name) {
  const [lab, query] = location.hash.slice(1).split("?");
  return lab === name ? Object.fromEntries(new URLSearchParams(query)) : {};
}

export function write(name, state) {
  history.replaceState(null, "", `#${name}?${new URLSearchParams(state)}`);
}

export function onChange(name, changed) {
  addEventListener("hashchange", () => changed(read(name)));
}

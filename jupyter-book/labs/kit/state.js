// What a lab shows, kept in the page's address: `#classify?picture=3&model=int8`. A teacher can share it.

/** The state of a lab in the address, every value a text; {} where the address is about something else. */
export function read(name, hash = location.hash) {
  const [lab, query = ""] = hash.slice(1).split("?");
  return lab === name ? Object.fromEntries(new URLSearchParams(query)) : {};
}

/** Put the state of a lab into the address. Empty values are left out. No page is loaded and none is added to the history. */
export function write(name, state) {
  history.replaceState(history.state, "", address(name, state));
}

/** The fragment for a state. */
export function address(name, state) {
  const kept = Object.entries(state).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#${name}${query && `?${query}`}`;
}

// What a lab shows, kept in the page's address: `#classify?picture=3&model=int8`. A teacher can share it. On a page with
// several labs their states stand one after the other: `#classify?picture=3;fusion?level=basic`.

/** The labs of which the address tells something: `[name, query]` pairs; none where it is the name of a heading. */
export function parts(hash = location.hash) {
  const all = hash.slice(1).split(";").map((part) => part.split("?"));
  return all.filter((part) => part.length > 1).map(([name, ...query]) => [name, query.join("?")]);
}

/** The state of a lab in the address, every value a text; {} where the address is about something else. */
export function read(name, hash = location.hash) {
  return Object.fromEntries(new URLSearchParams(new Map(parts(hash)).get(name)));
}

/**
 * Put the state of a lab into the address, and leave that of other labs there. Empty values are left out. No page is loaded
 * and none is added to the history.
 */
export function write(name, state) {
  history.replaceState(history.state, "", address(name, state, location.hash));
}

/** The fragment for a state. hash: the one before. */
export function address(name, state, hash = "") {
  const kept = Object.entries(state).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  const others = parts(hash).filter(([other]) => other !== name).map(([other, its]) => `${other}?${its}`);
  return `#${[...others, query ? `${name}?${query}` : name].join(";")}`;
}

// Findings, the places where they were seen, and text of a model made fit to be shown.

const PLACES_KEPT = 50;
const PLACES_SHOWN = 3;
const LONGEST_NAME = 80; // characters

/** One thing that was found. code: an id of the catalogue. where: a place or several. advice: a cure other than the code's. */
export function finding(code, cause, where = [], advice = "") {
  const places = Array.isArray(where) ? where : [where];
  return { code, cause, where: places.slice(0, PLACES_KEPT), count: places.length, advice };
}

/** kind: node, tensor, input, output, function, file or graph. graph: empty for the main one. */
export function place(kind, name, index = null, graph = "") {
  return { kind, name: plain(name, null), index, graph: plain(graph, null) };
}

export function placeText({ kind, name, index, graph }) {
  const number = index === null ? "" : ` #${index}`;
  return `${kind}${number} '${plain(name)}'${graph ? ` in ${plain(graph)}` : ""}`;
}

/** The first places of a finding in words; empty where it has none. */
export function placesText({ where, count }) {
  const shown = where.slice(0, PLACES_SHOWN).map(placeText).join(", ");
  const rest = count - Math.min(where.length, PLACES_SHOWN);
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}

/** Text of a model, safe to show: no control characters, no marks that turn the direction of writing, not endless. */
export function plain(text, longest = LONGEST_NAME) {
  let shown = String(text);
  if (longest !== null && shown.length > longest) {
    shown = `${shown.slice(0, Math.floor(longest / 2))}…${shown.slice(-Math.floor(longest / 3))}`;
  }
  return shown.replace(/(?! )[\p{C}\p{Z}]/gu, (c) => {
    const code = c.codePointAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  });
}

/** `a, b, c, d and 5 more`; each item once. */
export function listed(items, most = 4) {
  const texts = [...new Set(items)].map((item) => plain(item));
  return texts.slice(0, most).join(", ") + (texts.length > most ? ` and ${texts.length - most} more` : "");
}

/** `1 pair`, `2 pairs`. */
export function count(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}

/** Bytes in words, such as 1.2 MB. */
export function amount(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  if (unit === 0) return `${bytes.toLocaleString("en")} bytes`;
  return size < 1e6 ? `${size.toFixed(1)} ${units[unit]}` : `${size.toExponential(1)} ${units[unit]}`;
}

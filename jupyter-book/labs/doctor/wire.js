// The wire format of protobuf (https://protobuf.dev/programming-guides/encoding/): a sequence of fields, each a number, a type,
// and for everything long its length. Gone through before a file is read as a model, so that no file can fill the memory.
// As course_utils/diagnosis/file/skeleton.py and course_utils/file_formats.py have it.

export const VARINT = 0;
export const BYTES = 2;
const SIZES = { 1: 8, 5: 4 }; // bytes of the other wire types
const LISTS = new Set([0x3d, 0x40, 0x4a]); // tags of floats, ints and texts in an attribute, one by one
const MOST_PARTS = 3_000_000; // that become objects here; a page has less memory than Python
const MOST_LISTED = 16 * 2 ** 20; // bytes of numbers in lists, each of which becomes an object
const TYPED = new Set([4, 5, 7, 10, 11]); // fields of a tensor that hold numbers and are no raw data

/** Not in the wire format. */
export class Malformed extends Error {}
/** More or deeper parts than any exporter writes. */
export class TooComplex extends Error {}
/** Sound, perhaps, and too much for a page. */
export class TooMuchHere extends Error {}

/** [number, place behind it]; number is null where the view ends within it, or where it has no end. */
export function varint(bytes, start) {
  let value = 0;
  let at = start;
  for (let group = 0; group < 10; group += 1) {
    if (at >= bytes.length) return [null, at];
    value += (bytes[at] & 0x7f) * 2 ** (7 * group);
    at += 1;
    if (bytes[at - 1] < 0x80) return [value, at];
  }
  return [null, at];
}

/** The fields at the top of a message, the last one perhaps cut; and where what is no field begins, or the end. */
export function topFields(bytes) {
  const found = [];
  let at = 0;
  while (at < bytes.length && found.length < 10_000) {
    const [tag, behind] = varint(bytes, at);
    if (tag === null || tag < 8) return [found, at];
    const kind = tag & 7;
    let [content, end] = [behind, behind + (SIZES[kind] ?? 0)];
    if (kind === VARINT || kind === BYTES) {
      const [value, next] = varint(bytes, behind);
      if (value === null) end = bytes.length + 1;
      else if (kind === VARINT) end = next;
      else [content, end] = [next, next + value];
    } else if (!SIZES[kind]) {
      return [found, at];
    }
    found.push({ number: Math.floor(tag / 8), kind, start: at, content, end });
    at = end;
  }
  return [found, Math.min(at, bytes.length)];
}

/** Goes through all messages of a model. Returns how many stand within each other at most.
 * tables: of `skeleton`: INNER says which fields of which message lead on. */
export function scan(bytes, { INNER, KEPT, MOST_FIELDS, DEEPEST }) {
  const total = { fields: 0, parts: 0, listed: 0 };
  const waiting = [["Model", 0, bytes.length, 1]];
  let deepest = 0;
  while (waiting.length) {
    const [what, start, end, level] = waiting.pop();
    deepest = Math.max(deepest, level);
    if (deepest > 2 * DEEPEST) return deepest;
    for (const [number, from, to] of submessages(bytes, what, start, end, end - start > KEPT, total, MOST_FIELDS)) {
      const inner = INNER[what][number];
      if (inner) waiting.push([inner, from, to, level + 1]);
      else if (what === "Tensor" ? TYPED.has(number) : what === "Attribute" && (number === 7 || number === 8)) total.listed += to - from;
    }
    if (total.fields > MOST_FIELDS) throw new TooComplex(`more than ${MOST_FIELDS.toLocaleString("en")} parts`);
    if (total.parts > MOST_PARTS) throw new TooMuchHere(`more than ${MOST_PARTS.toLocaleString("en")} parts`);
    if (total.listed > MOST_LISTED) throw new TooMuchHere(`more than ${MOST_LISTED / 2 ** 20} MiB of numbers in lists`);
  }
  return deepest;
}

/** [number, start of the content, end] of each field that may be a message. counted: whether its fields count for the limit. */
function submessages(bytes, what, start, end, counted, total, most) {
  const found = [];
  let [at, last] = [start, 0];
  while (at < end) {
    const begin = at;
    const tag = bytes[at] < 0x80 ? bytes[at] : null; // one byte, mostly
    const [whole, behind] = tag === null ? varint(bytes, at) : [tag, at + 1];
    if (whole === null || whole < 8) throw new Malformed(`byte ${begin.toLocaleString("en")} begins no field`);
    const kind = whole & 7;
    at = behind + (SIZES[kind] ?? 0);
    if (kind === VARINT || kind === BYTES) {
      const [value, next] = varint(bytes, behind);
      if (value === null) throw new Malformed(`a number at byte ${behind.toLocaleString("en")} has no end`);
      at = kind === VARINT ? next : next + value;
      if (kind === BYTES) found.push([Math.floor(whole / 8), next, at]);
    } else if (!SIZES[kind]) {
      throw new Malformed(`byte ${begin.toLocaleString("en")} begins no field`);
    }
    if (at > end) throw new Malformed(`a part at byte ${begin.toLocaleString("en")} says that it ends at byte ${at.toLocaleString("en")}`);
    total.parts += 1;
    if (total.parts > MOST_PARTS || total.fields > most) return found; // the caller says so
    // Lists of numbers and of texts in an attribute count as one.
    if (counted && !(what === "Attribute" && whole === last && LISTS.has(whole))) total.fields += 1;
    last = whole;
  }
  return found;
}

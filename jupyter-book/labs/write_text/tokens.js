// Text to tokens and back: pairs of bytes, as the package tokenizers joins them.

// What is split before pairs are joined, as in GPT-2. \s of a regular expression is not the same in each language.
const SPACE = "\\p{White_Space}";
const WORDS = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|${SPACE}+(?!\\P{White_Space})|${SPACE}+`, "gu");

/** A sign for each byte: a vocabulary is text, and not every byte is a sign that can be seen. */
function byteSigns() {
  const seen = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(seen(byte) ? byte : next++));
}

/** stored: the JSON that the package tokenizers saves. Returns `encode(text)`, `decode(ids)` and `size`. */
export function tokenizer(stored) {
  const signs = byteSigns();
  const bytes = new Map(signs.map((sign, byte) => [sign, byte]));
  const { vocab, merges } = stored.model;
  const order = new Map(merges.map((pair, at) => [(Array.isArray(pair) ? pair : pair.split(" ")).join(" "), at]));
  const special = new Map(stored.added_tokens.map(({ id, content }) => [content, id]));
  const pieces = [];
  for (const [token, id] of Object.entries(vocab)) pieces[id] = special.has(token) ? [] : Array.from(token, (sign) => bytes.get(sign));
  const around = new RegExp(`(${[...special.keys()].map((mark) => mark.replace(/[^\w]/g, "\\$&")).join("|")})`);
  const known = new Map(); // word → ids

  function joined(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => signs[byte]);
    for (;;) {
      let first = Infinity;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = order.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < first) [first, at] = [rank, i];
      }
      if (at < 0) return parts.map((part) => vocab[part]);
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  function ids(word) {
    if (!known.has(word)) known.set(word, joined(word));
    return known.get(word);
  }

  return {
    size: pieces.length,
    encode: (text) => text.split(around).flatMap((part) => (special.has(part) ? [special.get(part)] : (part.match(WORDS) ?? []).flatMap(ids))),
    decode: (numbers) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(numbers.flatMap((number) => pieces[number]))),
  };
}

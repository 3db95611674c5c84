// Which of many messages is meant by a piece of one: words count, and rare ones more. Names, numbers and paths do not.

/** The words of a message that are the same in every case of it. */
export function wordsOf(text) {
  const plain = text.replace(/'[^']*'|"[^"]*"|\S*\/\S*|[^\p{L}]+/gu, " ").toLowerCase();
  return [...new Set(plain.split(/\s+/).filter((word) => word.length > 2))];
}

/**
 * The best of `texts` for a message: [{index, score}], best first; none below `least`. A score of 1 means the same words.
 */
export function rank(texts, message, { most = 6, least = 0.3 } = {}) {
  const all = texts.map(wordsOf);
  const count = new Map();
  for (const word of all.flat()) count.set(word, (count.get(word) ?? 0) + 1);
  const weigh = (words) => words.reduce((sum, word) => sum + Math.log(1 + all.length / (count.get(word) ?? 1)), 0);
  const asked = wordsOf(message).filter((word) => count.has(word)); // a line of a traceback has words that no message has
  const known = new Set(asked);
  const whole = weigh(asked);
  return all
    .map((words, index) => ({ index, score: weigh(words.filter((word) => known.has(word))) / Math.sqrt(weigh(words) * whole || 1) }))
    .filter(({ score }) => score >= least)
    .sort((one, other) => other.score - one.score)
    .slice(0, most);
}

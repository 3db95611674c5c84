// Which token comes next.

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `[token, score]` of the highest scores, the highest first; of equal ones, the smaller token. */
export function highest(scores, count) {
  const all = Array.from(scores, (score, token) => [token, score]);
  return all.sort((one, other) => other[1] - one[1] || one[0] - other[0]).slice(0, count);
}

/** `[token, chance]` of tokens with these scores; the chances add up to 1. */
export function chances(scored, temperature = 1) {
  const most = Math.max(...scored.map(([, score]) => score));
  const weights = scored.map(([token, score]) => [token, Math.exp((score - most) / temperature)]);
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  return weights.map(([token, weight]) => [token, weight / sum]);
}

/** The next token: that with the highest score at temperature 0, otherwise one drawn among the `most` highest. */
export function choose(scores, { temperature, most }, draw) {
  const candidates = highest(scores, temperature ? most || scores.length : 1);
  if (!temperature) return candidates[0][0];
  let left = draw();
  for (const [token, chance] of chances(candidates, temperature)) {
    left -= chance;
    if (left < 0) return token;
  }
  return candidates.at(-1)[0];
}

// Token by token: what is fed, and what is kept.

import { choose, random } from "./choosing.js";

/** The cache of a text that has no token yet. */
export async function empty({ layers, kv_heads: heads, size }, tensor) {
  const names = Array.from({ length: layers }, (_, layer) => [`past.key.${layer}`, `past.value.${layer}`]).flat();
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await tensor("float32", new Float32Array(0), [1, heads, 0, size])])));
}

/**
 * Continues a text. For each token it gives the token, the scores that it was chosen by, and the milliseconds of the step.
 *
 * ids: tokens of the prompt, one or more. rule: temperature, most, seed, cache (keep keys and values, or compute all anew),
 * count (tokens at most), end (the token after which nothing comes).
 */
export async function* continued(session, sizes, ids, rule, tensor) {
  const draw = random(rule.seed);
  const nothing = await empty(sizes, tensor);
  const text = [...ids];
  let cache = nothing;
  let fed = text;
  for (let step = 0; step < rule.count; step++) {
    const input = await tensor("int64", BigInt64Array.from(fed, BigInt), [1, fed.length]);
    const began = performance.now();
    const answer = await session.run({ ids: input, ...cache });
    const all = answer.logits.data;
    const scores = all.slice(all.length - sizes.words);
    const token = choose(scores, rule, draw);
    const took = performance.now() - began;
    text.push(token);
    yield { token, scores, took };
    if (token === rule.end) return;
    if (rule.cache) cache = Object.fromEntries(Object.keys(nothing).map((name) => [name, answer[name.replace("past", "present")]]));
    fed = rule.cache ? [token] : text;
  }
}

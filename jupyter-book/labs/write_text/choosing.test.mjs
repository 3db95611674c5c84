import assert from "node:assert/strict";
import test from "node:test";
import { chances, choose, highest, random } from "./choosing.js";

const SCORES = [0.5, 3, -1, 2, 3];

test("without a temperature the highest score wins, and of equal ones the first", () => {
  assert.equal(choose(SCORES, { temperature: 0, most: 0 }, () => 0.99), 1);
  assert.deepEqual(highest(SCORES, 3).map(([token]) => token), [1, 4, 3]);
});

test("the same seed draws the same, another one does not", () => {
  const draws = (seed) => {
    const draw = random(seed);
    return Array.from({ length: 50 }, () => choose(SCORES, { temperature: 2, most: 0 }, draw));
  };
  assert.deepEqual(draws(7), draws(7));
  assert.notDeepEqual(draws(7), draws(8));
});

test("draws follow the chances", () => {
  const draw = random(1);
  const count = 20000;
  const seen = SCORES.map(() => 0);
  for (let i = 0; i < count; i++) seen[choose(SCORES, { temperature: 1.5, most: 0 }, draw)]++;
  for (const [token, chance] of chances(highest(SCORES, 5), 1.5)) assert.ok(Math.abs(seen[token] / count - chance) < 0.015);
});

test("only the highest ones are drawn when so many are wanted", () => {
  const draw = random(3);
  const seen = new Set(Array.from({ length: 500 }, () => choose(SCORES, { temperature: 5, most: 2 }, draw)));
  assert.deepEqual([...seen].sort(), [1, 4]);
});

test("chances add up to one, and a low temperature makes the highest one sure", () => {
  const sum = chances(highest(SCORES, 5), 0.7).reduce((total, [, chance]) => total + chance, 0);
  assert.ok(Math.abs(sum - 1) < 1e-12);
  assert.ok(chances([[0, 3], [1, 2]], 0.01)[0][1] > 0.999999);
});

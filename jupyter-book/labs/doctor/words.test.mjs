import assert from "node:assert/strict";
import { test } from "node:test";

import { amount, count, finding, listed, place, placesText, plain } from "./words.js";

test("text of a model is made fit to be shown", () => {
  assert.equal(plain("a\u001b[2J\u202eb\u00a0c é 猫"), "a\\x1b[2J\\u202eb\\xa0c é 猫");
  assert.equal(plain("x".repeat(200)), `${"x".repeat(40)}…${"x".repeat(26)}`);
});

test("places: the first three, and how many more", () => {
  const where = ["a", "b", "c", "d", "e"].map((name, i) => place("node", name, i));
  assert.equal(placesText(finding("code", "cause", where)), "node #0 'a', node #1 'b', node #2 'c' and 2 more");
  assert.equal(placesText(finding("code", "cause", place("tensor", "w", null, "If 0 / then"))), "tensor 'w' in If 0 / then");
  assert.equal(placesText(finding("code", "cause")), "");
  const many = finding("code", "cause", Array(1000).fill(where[0]));
  assert.deepEqual([many.count, many.where.length], [1000, 50]);
});

test("numbers in words", () => {
  assert.deepEqual([amount(999), amount(1500), amount(2 ** 62)], ["999 bytes", "1.5 kB", "4.6e+6 TB"]);
  assert.deepEqual([count(1, "node"), count(1200, "node")], ["1 node", "1,200 nodes"]);
  assert.equal(listed(["a", "b", "a", "c", "d", "e"]), "a, b, c, d and 1 more");
});

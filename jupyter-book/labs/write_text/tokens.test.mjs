import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { tokenizer } from "./tokens.js";

const DATA = new URL("../../../data/small_decoder_tokenizer.json", import.meta.url);
const own = tokenizer(JSON.parse(await readFile(DATA, "utf8")));

test("a text comes back as it was", () => {
  for (const text of ["", "The file", "naïve 12 345 x\n\n\ty", "日本 🙂", "  two  spaces ", "it's we'll", "\u00a0\u3000x\u0085y", "\ufeffmark", "e\u0301"]) {
    assert.equal(own.decode(own.encode(text)), text);
  }
});

test("common words are few tokens", () => {
  assert.ok(own.encode("The model of the lesson").length < 9);
  assert.ok(own.size <= 1000);
});

test("the mark of a page is one token and no text", () => {
  assert.deepEqual(own.encode("<start>"), [0]);
  assert.equal(own.decode([0]), "");
});

test("half a letter is shown as what it is", () => {
  const [half] = own.encode("\u00e9").length > 1 ? own.encode("\u00e9") : own.encode("\u65e5");
  assert.equal(own.decode([half]), "\ufffd");
});

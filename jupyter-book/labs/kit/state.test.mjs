import assert from "node:assert/strict";
import test from "node:test";
import { address, read } from "./state.js";

test("what is written is read again", () => {
  const state = { picture: "3", text: "a & b = c?" };
  assert.deepEqual(read("classify", address("classify", state)), state);
});

test("empty values are left out, and without any there is no question mark", () => {
  assert.equal(address("fusion", { node: "", level: undefined }), "#fusion");
  assert.equal(address("fusion", { node: "", level: "basic" }), "#fusion?level=basic");
});

test("the address of another lab, or of a heading, says nothing", () => {
  assert.deepEqual(read("classify", "#fusion?picture=3"), {});
  assert.deepEqual(read("classify", "#classify-a-garment"), {});
  assert.deepEqual(read("classify", ""), {});
});

import assert from "node:assert/strict";
import test from "node:test";
import { address, parts, read } from "./state.js";

test("what is written is read again", () => {
  const state = { picture: "3", text: "a & b = c?; d # é" };
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

test("a lab leaves the state of the others where it is", () => {
  const both = address("fusion", { level: "basic" }, "#classify?picture=3");
  assert.equal(both, "#classify?picture=3;fusion?level=basic");
  assert.deepEqual([read("classify", both), read("fusion", both)], [{ picture: "3" }, { level: "basic" }]);
  assert.equal(address("classify", { picture: "4" }, both), "#fusion?level=basic;classify?picture=4");
  assert.equal(address("classify", { picture: "4" }, "#without-pytorch"), "#classify?picture=4");
});

test("the name of a heading is no lab", () => {
  assert.deepEqual(parts("#without-pytorch"), []);
  assert.deepEqual(parts("#classify?picture=3"), [["classify", "picture=3"]]);
});

import assert from "node:assert/strict";
import test from "node:test";

import { format, parse, read, write } from "./state.js";

const object = (map) => Object.fromEntries(map);

test("a state is read from the fragment", () => {
  assert.deepEqual(object(parse("#classify?picture=3&model=int8")), { classify: { picture: "3", model: "int8" } });
});

test("several labs have a part each", () => {
  const found = object(parse("#fusion?level=all;classify?picture=3"));
  assert.deepEqual(found, { fusion: { level: "all" }, classify: { picture: "3" } });
});

test("the name of a heading is no state", () => {
  for (const fragment of ["", "#", "#recap", "#claim-runs-without-pytorch", "#A?b=1", "#?a=1"]) {
    assert.deepEqual(object(parse(fragment)), {}, fragment);
  }
});

test("what was formatted is read back, odd characters included", () => {
  const state = { text: "a;b&c=d?e#f ü/100%", zero: "0" };
  const fragment = format(new Map([["classify", state], ["fusion", { level: "1" }]]));
  assert.equal(fragment.split(";").length, 2);
  assert.deepEqual(object(parse(fragment)), { classify: state, fusion: { level: "1" } });
});

test("nothing empty stands in the address", () => {
  assert.equal(format(new Map([["a", { b: "", c: null, d: undefined }]])), "");
  assert.equal(format(new Map([["a", { b: 0, c: false }]])), "#a?b=0&c=false");
});

test("a lab writes its own part, first, and leaves those of others", () => {
  const seen = [];
  globalThis.location = { hash: "#fusion?level=all;classify?picture=1", pathname: "/labs.html", search: "" };
  globalThis.history = { state: null, replaceState: (state, title, address) => seen.push(address) };
  write("classify", { picture: 2 });
  assert.equal(seen.pop(), "#classify?picture=2;fusion?level=all");
  location.hash = "#classify?picture=2";
  assert.deepEqual(read("classify"), { picture: "2" });
  assert.deepEqual(read("fusion"), {});
  write("classify", {});
  assert.equal(seen.pop(), "/labs.html");
});

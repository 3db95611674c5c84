import assert from "node:assert/strict";
import { test } from "node:test";

import { Malformed, scan, TooComplex, TooMuchHere, topFields, varint } from "./wire.js";

const TABLES = {
  KEPT: 10,
  MOST_FIELDS: 100,
  DEEPEST: 100,
  INNER: { Model: { 7: "Graph" }, Graph: { 1: "Node", 5: "Tensor" }, Node: { 5: "Attribute" }, Attribute: { 6: "Graph" }, Tensor: {} },
};
const length = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...length(n >> 7)]);
/** A field of bytes. */
const part = (number, content) => [...length((number << 3) | 2), ...length(content.length), ...content];
const scanned = (bytes) => scan(Uint8Array.from(bytes), TABLES);

test("numbers in groups of seven bits", () => {
  assert.deepEqual(varint(Uint8Array.of(0xac, 0x02), 0), [300, 2]);
  assert.deepEqual(varint(Uint8Array.of(0x80), 0), [null, 1]);
  assert.deepEqual(varint(new Uint8Array(12).fill(0x80), 0), [null, 10]);
});

test("the fields at the top, the last one cut", () => {
  const [fields, rest] = topFields(Uint8Array.from([8, 10, ...part(7, [1, 2, 3])].slice(0, -1)));
  assert.deepEqual(fields.map(({ number, kind, end }) => [number, kind, end]), [[1, 0, 2], [7, 2, 7]]);
  assert.equal(rest, 6);
});

test("how deep messages stand within each other", () => {
  let graph = [];
  for (let i = 0; i < 3; i += 1) graph = part(1, part(5, part(6, graph)));
  assert.equal(scanned([8, 10, ...part(7, graph)]), 1 + 1 + 3 * 3);
});

test("what is not in the format", () => {
  assert.throws(() => scanned([0, 1]), Malformed);
  assert.throws(() => scanned([15, 1]), /byte 0 begins no field/);
  assert.throws(() => scanned([8, 0x80]), /a number at byte 1 has no end/);
  assert.throws(() => scanned(part(7, part(1, [10, 99]))), /a part at byte 4 says that it ends at byte 105/);
});

test("more parts than an exporter writes, and more than a page holds", () => {
  assert.equal(scanned(part(7, Array(99).fill([10, 0]).flat())), 3);
  assert.throws(() => scanned(part(7, Array(101).fill([10, 0]).flat())), TooComplex);
  const list = new Uint8Array(17 * 2 ** 20);
  const tensor = [...length((7 << 3) | 2), ...length(list.length)];
  const head = [...part(5, []).slice(0, 1), ...length(tensor.length + list.length)];
  const graph = [...length((7 << 3) | 2), ...length(head.length + tensor.length + list.length)];
  const bytes = new Uint8Array(graph.length + head.length + tensor.length + list.length);
  bytes.set([...graph, ...head, ...tensor]);
  assert.throws(() => scan(bytes, TABLES), (error) => error instanceof TooMuchHere && /16 MiB of numbers in lists/.test(error.message));
});

// The examination without a page: `node in_node.mjs doctor.json FOLDER` prints what is found in each file of a folder, as JSON:
// its name → {codes, facts, stopped}. The tests compare it with Python's doctor.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { examine } from "./examine.js";

const [catalogue, folder] = process.argv.slice(2);
const known = JSON.parse(readFileSync(catalogue, "utf-8"));
const found = {};
for (const name of readdirSync(folder).sort()) {
  const { findings, facts, notExamined } = examine(new Uint8Array(readFileSync(join(folder, name))), known);
  found[name] = { codes: findings.map((f) => f.code), facts, stopped: notExamined.filter((text) => text.startsWith("The check")) };
}
console.log(JSON.stringify(found));

// Examines or compares files beside the page, which stays usable meanwhile and ends this when it takes too long.

import { diff } from "./diff.js";
import { examine } from "./examine.js";
import { read } from "./reading.js";
import { TooMuchHere } from "./wire.js";

const TASKS = {
  examine: ([bytes], catalogue) => examine(bytes, catalogue),
  compare: (files, catalogue, names) => diff(...files.map((bytes, at) => whole(bytes, catalogue, names[at]))),
};

/** The model in these bytes of a file of this name. Throws an Error with the first thing that is wrong with them. */
function whole(bytes, catalogue, name) {
  const { model, finding } = read(bytes, catalogue);
  if (finding) throw new Error(`${name} cannot be compared. ${catalogue.codes[finding.code].title}. ${finding.cause}`);
  return model;
}

addEventListener("message", async ({ data: { task, files, names, catalogue } }) => {
  try {
    const bytes = await Promise.all(files.map(async (file) => new Uint8Array(await file.arrayBuffer())));
    postMessage({ result: TASKS[task](bytes, catalogue, names) });
  } catch (error) {
    postMessage({ refused: error.message, tooMuch: error instanceof TooMuchHere });
  }
});

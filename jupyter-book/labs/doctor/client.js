// Files given to the worker, within limits: what goes wrong is one sentence.

export const SECONDS = 10;
export const LARGEST = 200e6; // bytes of all files together; a phone's page has not much more memory
const PYTHON = "Python's doctor takes larger ones: python -m course_utils.doctor FILE.";

let idle = null; // a worker that waits for the next file

/** The answer of the worker. task: "examine" or "compare". files: Files or Blobs. names: of the files
 * that are compared. Throws an Error with one sentence. */
export async function ask(task, files, catalogue, { names = [], seconds = SECONDS, largest = LARGEST } = {}) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  const what = files.length > 1 ? "These files have" : "This file has";
  if (size > largest) {
    throw new Error(`${what} ${Math.ceil(size / 1e6)} MB, and this page reads at most ${largest / 1e6} MB. ${PYTHON}`);
  }
  const worker = idle ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  idle = null;
  const { result, refused, ended } = await answer(worker, { task, files, names, catalogue }, seconds, what);
  if (ended) worker.terminate();
  else idle = worker;
  if (ended || refused) throw new Error(ended ?? refused);
  return result;
}

/** What the worker says: {result}, {refused} with a sentence, or {ended} with one where it must not go on. */
function answer(worker, question, seconds, what) {
  return new Promise((resolve) => {
    const late = `The examination took more than ${seconds} seconds, so the page ended it. ${PYTHON}`;
    const timer = setTimeout(() => resolve({ ended: late }), seconds * 1000);
    worker.onmessage = ({ data }) => {
      clearTimeout(timer);
      resolve(data.tooMuch ? { refused: `${what} ${data.refused}, which is too much for a page. ${PYTHON}` } : data);
    };
    worker.onerror = (event) => {
      clearTimeout(timer);
      event.preventDefault();
      resolve({ ended: `The examination stopped (${event.message ?? "out of memory, perhaps"}). Choose another file, or use Python's doctor.` });
    };
    worker.postMessage(question);
  });
}

// Files given to the worker, within limits: what goes wrong is one sentence.

export const SECONDS = 10;
export const LARGEST = 200e6; // bytes of all files together; a phone's page has not much more memory
const PYTHON = "Python's doctor takes larger ones: python -m course_utils.doctor FILE.";

/** The answer of the worker. task: "examine" or "compare". files: Files or Blobs. Throws an Error with one sentence. */
export async function ask(task, files, catalogue, { seconds = SECONDS, largest = LARGEST } = {}) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  const what = files.length > 1 ? "These files have" : "This file has";
  if (size > largest) {
    throw new Error(`${what} ${Math.ceil(size / 1e6)} MB, and this page reads at most ${largest / 1e6} MB. ${PYTHON}`);
  }
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  try {
    return await answer(worker, { task, files, catalogue }, seconds, what);
  } finally {
    worker.terminate();
  }
}

function answer(worker, question, seconds, what) {
  return new Promise((resolve, reject) => {
    const late = `The examination took more than ${seconds} seconds, so the page ended it. ${PYTHON}`;
    const timer = setTimeout(() => reject(new Error(late)), seconds * 1000);
    worker.addEventListener("message", ({ data }) => {
      clearTimeout(timer);
      if (data.tooMuch) reject(new Error(`${what} ${data.refused}, which is too much for a page. ${PYTHON}`));
      else if (data.refused) reject(new Error(data.refused));
      else resolve(data.result);
    });
    worker.addEventListener("error", (event) => {
      clearTimeout(timer);
      event.preventDefault();
      reject(new Error(`The examination stopped (${event.message ?? "out of memory, perhaps"}). Choose another file, or use Python's doctor.`));
    });
    worker.postMessage(question);
  });
}

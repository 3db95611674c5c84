// ONNX Runtime Web for all labs: served once with the site, loaded when the first model is opened. It uses no document, so
// that a worker can import it, too.

const BUILDS = { wasm: "ort.wasm.min.mjs", webgpu: "ort.webgpu.min.mjs" };
const FOLDER = new URL("../../ort/", import.meta.url);
const loaded = new Map();

// Open a model.
//   model: the address of a file, or its bytes (Uint8Array).
//   provider: "wasm" (the default), or "webgpu": where the browser has none, the model runs on wasm, and `reason` says why.
//   threads: how many wasm may use. More than one needs a page that is isolated from others; `threads` says what it got.
//   sessionOptions: of ONNX Runtime Web, such as { graphOptimizationLevel: "disabled" }.
// Gives { run, inputs, outputs, provider, threads, reason, bytes, release }.
//   run({ name: tensor(…) }) → { name: { type, dims, data } }; runs of one page wait for each other.
//   inputs, outputs: [{ name, type, shape }]. bytes: the size of the file.
export async function open(model, { provider = "wasm", threads, sessionOptions = {} } = {}) {
  if (!(provider in BUILDS)) {
    throw new Error(`The provider ${JSON.stringify(provider)} is unknown: give "wasm" or "webgpu".`);
  }
  const reason = provider === "webgpu" ? await obstacle() : undefined;
  const used = reason ? "wasm" : provider;
  const [ort, bytes] = await Promise.all([load(used, threads), model instanceof Uint8Array ? model : fetched(model)]);
  const session = await next(() =>
    // One provider alone: with two, nobody could say which of them ran.
    ort.InferenceSession.create(bytes, { ...sessionOptions, executionProviders: [used] }),
  );
  return {
    run: (feeds) => next(() => session.run(tensors(ort, feeds))),
    inputs: described(session.inputMetadata),
    outputs: described(session.outputMetadata),
    provider: used,
    threads: ort.env.wasm.numThreads,
    reason,
    bytes: bytes.length,
    release: () => next(() => session.release()),
  };
}

// What `run` takes. type: of ONNX Runtime Web, such as "float32", "uint8", "int64" (data: BigInt64Array).
export const tensor = (type, data, dims) => ({ type, data, dims });

// ONNX Runtime Web itself, loaded once. The first caller's `threads` holds for the page.
export function load(provider = "wasm", threads = undefined) {
  if (!loaded.has(provider)) {
    const address = new URL(BUILDS[provider], FOLDER);
    const coming = import(address).then((ort) => {
      ort.env.wasm.wasmPaths = FOLDER.href; // from this site
      ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? (threads ?? spareThreads()) : 1;
      ort.env.logLevel = "error"; // its warnings are for those who build a page
      return ort;
    });
    const told = coming.catch((error) => {
      loaded.delete(provider); // so that the next click tries again
      throw new Error("ONNX Runtime could not be loaded: look whether you are on line, and try again.", { cause: error });
    });
    loaded.set(provider, told);
  }
  return loaded.get(provider);
}

// Why this browser cannot run a model on the graphics card; undefined where it can.
export async function obstacle() {
  if (!globalThis.isSecureContext) return "WebGPU needs a page from https";
  if (!navigator.gpu) return "this browser has no WebGPU";
  if (!(await navigator.gpu.requestAdapter())) return "this browser gave no adapter";
  return undefined;
}

// Milliseconds of one call: the median of `rounds`, after some calls that do not count. The clock of a browser is coarse,
// so a call that is shorter than `least` milliseconds is repeated within a round.
export async function stopwatch(call, { rounds = 15, warmUp = 3, least = 2 } = {}) {
  let once = Infinity;
  for (let i = 0; i < warmUp; i++) once = Math.min(once, await time(call, 1));
  const repeats = Math.min(100, Math.max(1, Math.ceil(least / Math.max(once, 0.05))));
  const times = [];
  for (let i = 0; i < rounds; i++) times.push(await time(call, repeats));
  return { median: median(times), rounds, repeats };
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function time(call, repeats) {
  const began = performance.now();
  for (let i = 0; i < repeats; i++) await call();
  return (performance.now() - began) / repeats;
}

async function fetched(address) {
  const response = await fetch(address).catch((error) => {
    throw new Error("The model could not be loaded: look whether you are on line, and try again.", { cause: error });
  });
  if (!response.ok) throw new Error(`The model could not be loaded: the server answered ${response.status}.`);
  return new Uint8Array(await response.arrayBuffer());
}

// Two runs at once are an error of ONNX Runtime Web on some providers: so each waits for the one before.
let turn = Promise.resolve();
function next(work) {
  const mine = turn.then(work);
  turn = mine.catch(() => {});
  return mine;
}

function tensors(ort, feeds) {
  const made = ([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)];
  return Object.fromEntries(Object.entries(feeds).map(made));
}

const described = (metadata) => metadata.map(({ name, type, shape }) => ({ name, type, shape }));

// Half of what the machine has, four at most: a page is not alone on it.
const spareThreads = () => Math.max(1, Math.min(4, (navigator.hardwareConcurrency ?? 2) >> 1));

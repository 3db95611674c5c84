// ONNX Runtime Web: one copy for the whole site, loaded when a lab first runs a model.

const FILES = new URL("../../ort/", import.meta.url); // this module lies in `_static/labs/kit/`
const BUILDS = { wasm: "wasm.js", webgpu: "webgpu.js" };
const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU" };
const MOST_THREADS = 4; // the course's models are small: more threads only wait for each other
// The smallest module that has an instruction on 128 bits.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

const QUIET = { logSeverityLevel: 4 }; // an error comes as an exception, and is told in the page

const loaded = {}; // build → promise of its module
let turn = Promise.resolve(); // one run at a time: two at once freeze the page on WebGPU

/** Threads that WebAssembly gets here: one, unless the site is isolated from other origins. most: how many are wanted. */
export function possibleThreads(most = MOST_THREADS) {
  return globalThis.crossOriginIsolated ? Math.max(1, Math.min(most, navigator.hardwareConcurrency ?? 1)) : 1;
}

/** Why this page cannot run models, in a sentence; nothing where it can. */
export function obstacle() {
  if (typeof WebAssembly !== "object") return "This browser has no WebAssembly, so no model can run in the page: read on, or use another browser.";
  if (!WebAssembly.validate(SIMD)) return "This browser's WebAssembly has no SIMD, so no model can run in the page: a newer browser can.";
  return "";
}

async function load(build) {
  const why = obstacle();
  if (why) throw new Error(why);
  loaded[build] ??= import(new URL(BUILDS[build], FILES)).then((ort) => {
    ort.env.wasm.wasmPaths = FILES.href;
    ort.env.logLevel = "error";
    return ort;
  });
  try {
    return await loaded[build];
  } catch (error) {
    delete loaded[build]; // perhaps the network is back at the next click
    throw new Error("ONNX Runtime could not be loaded: look at your connection, then try again.", { cause: error });
  }
}

/** A tensor, in the build of the runtime that runs on the processor; the other one takes it as well. */
export async function tensor(type, data, dims) {
  const ort = await load("wasm");
  return new ort.Tensor(type, data, dims);
}

/**
 * A model, ready to run. model: address or bytes. provider: "wasm" or "webgpu". threads: at most so many; the first model
 * of a page decides, for all share them. `size` of the answer: bytes of the file.
 *
 * Throws an Error with ONNX Runtime's words when it does not load. Nodes that WebGPU lacks run on the CPU, silently, unless
 * the session's key `disable_cpu_ep_fallback` is set.
 */
export async function open(model, { provider = "wasm", threads, sessionOptions = {} } = {}) {
  if (provider === "webgpu" && !navigator.gpu) throw new Error("This browser has no WebGPU, or not on this page: WebGPU needs a page from https, or from this device.");
  const [ort, source] = await Promise.all([load(provider), typeof model === "string" ? bytes(model) : model]);
  ort.env.wasm.numThreads ||= possibleThreads(threads);
  const session = await inTurn(() => ort.InferenceSession.create(source, { executionProviders: [provider], ...QUIET, ...sessionOptions }));
  return {
    run: (feeds) => inTurn(() => session.run(feeds, QUIET)),
    inputs: session.inputNames,
    outputs: session.outputNames,
    provider: NAMES[provider],
    threads: provider === "wasm" ? ort.env.wasm.numThreads : 1,
    size: source.byteLength,
    release: () => inTurn(() => session.release()),
  };
}

/** Where models run, in words: "WebAssembly, one thread". */
export function place({ provider, threads: n }) {
  return provider === "WebAssembly" ? `${provider}, ${n === 1 ? "one thread" : `${n} threads`}` : provider;
}

/** The bytes behind an address. Throws an Error with one sentence. */
export async function bytes(address) {
  const name = new URL(address, location.href).pathname.split("/").pop();
  let answer;
  try {
    answer = await fetch(address);
  } catch (error) {
    throw new Error(`${name} could not be loaded: look at your connection, then try again.`, { cause: error });
  }
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status}): load the page again.`);
  return new Uint8Array(await answer.arrayBuffer());
}

function inTurn(work) {
  const mine = turn.then(work);
  turn = mine.catch(() => {});
  return mine;
}

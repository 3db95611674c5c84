import { ask } from "./predict.js";

// Why the graphics card cannot be asked here; nothing where it can
export async function obstacle() {
  if (!isSecureContext) return "WebGPU needs a page from https";
  if (!navigator.gpu) return "this browser has no WebGPU";
  if (!(await navigator.gpu.requestAdapter())) return "this browser gave no adapter";
}

// The model on WebGPU, under the name of the adapter that is used. Or an error.
export async function start() {
  const ort = await import("./webgpu/ort.webgpu.min.mjs"); // now, and not before
  ort.env.wasm.wasmPaths = new URL("./webgpu/", import.meta.url).href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create("model.onnx", {
    executionProviders: ["webgpu"], // alone: where it cannot run, this throws
  });
  const { adapterInfo, lost } = await ort.env.webgpu.device;
  let turn = Promise.resolve(); // two runs at once freeze the page
  const predict = (pixels) =>
    (turn = turn.catch(() => {}).then(() => ask(ort, session, pixels)));
  return { name: `WebGPU on ${title(adapterInfo)}`, lost, predict };
}

function title({ vendor, architecture, description, isFallbackAdapter }) {
  const name = description || `${vendor} ${architecture}`.trim() || "an adapter without a name";
  return isFallbackAdapter ? `${name}, a software adapter` : name;
}

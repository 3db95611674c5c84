import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href; // from this server
ort.env.wasm.numThreads = 1;

const session = await ort.InferenceSession.create("model.onnx", {
  executionProviders: ["wasm"],
});

export const predict = (pixels) => ask(ort, session, pixels);

// pixels: numbers from 0 to 255, 784 for each picture
export async function ask(ort, session, pixels) {
  const shape = [pixels.length / 784, 28, 28];
  const tensor = new ort.Tensor("uint8", Uint8Array.from(pixels), shape);
  const { label, probability } = await session.run({ pixels: tensor });
  return {
    label: Array.from(label.data, Number),
    probability: Array.from(probability.data),
  };
}

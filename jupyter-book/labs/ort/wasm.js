// ONNX Runtime Web for the processor, with its WebAssembly unpacked.

import * as ort from "./ort.wasm.min.mjs";
import { unpacked } from "./packed.js";

ort.env.wasm.wasmBinary = await unpacked("ort-wasm-simd-threaded.wasm.gz");
export * from "./ort.wasm.min.mjs";

// ONNX Runtime Web for WebGPU, with its WebAssembly unpacked.

import * as ort from "./ort.webgpu.min.mjs";
import { unpacked } from "./packed.js";

ort.env.wasm.wasmBinary = await unpacked("ort-wasm-simd-threaded.asyncify.wasm.gz");
export * from "./ort.webgpu.min.mjs";

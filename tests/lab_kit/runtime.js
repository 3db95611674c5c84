// The least that a lab needs of `kit/runtime.js`, for tests of a lab without the kit.

const library = new URL("../ort/ort.wasm.min.mjs", import.meta.url).href;

export async function open(source, { provider = "wasm", sessionOptions = {} } = {}) {
  const ort = await import(library);
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(source, { executionProviders: [provider], logSeverityLevel: 4, ...sessionOptions });
  const run = (feeds) => session.run(feeds, { logSeverityLevel: 4 });
  return { run, inputs: session.inputMetadata, outputs: session.outputMetadata, provider, threads: 1, release: () => session.release() };
}

export async function tensor(type, data, dims) {
  const { Tensor } = await import(library);
  return new Tensor(type, data, dims);
}

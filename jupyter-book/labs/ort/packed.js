// The runtime's WebAssembly lies on the site packed by gzip, a quarter as large, since few hosts pack it on the way.

/** The bytes of a packed file beside this module. Throws an Error with one sentence. */
export async function unpacked(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status}): load the page again.`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes; // a host that knows gzip had the browser unpack it
  if (!globalThis.DecompressionStream) throw new Error("This browser is too old to run models in the page: a newer one can.");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The site's service worker: pages that were visited open without a network, and WebAssembly gets threads.
//
// It answers for this site alone. A page comes from the network, and from what was kept when there is none. Every answer says
// that the page is isolated from other origins, which browsers ask for before they give threads; the site asks no other origin
// for anything, so nothing is lost. {{ build }} names the build: a new one begins with an empty store.

const PREFIX = "onnx-scroll ";
const STORE = `${PREFIX}{{ build }}`;
const LARGE = /\/_static\/(ort|vendor)\//; // the same in the whole life of a build, so they are taken from the store first
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin" };
const OFFLINE = `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>No network - The ONNX Scroll</title><style>:root { color-scheme: light dark } body { max-width: 34rem; margin: 15vh auto; padding: 0 1rem; font: 1.1rem/1.6 system-ui, sans-serif }</style>
<main><h1>There is no network</h1><p>This page was not opened before, so this browser has no copy of it. Pages that you have read open as before.</p></main></html>`;

addEventListener("install", () => skipWaiting());

addEventListener("activate", (event) => event.waitUntil(takeOver()));

async function takeOver() {
  const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== STORE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
}

addEventListener("fetch", (event) => {
  const { method, url, headers } = event.request;
  if (method !== "GET" || !url.startsWith(registration.scope) || headers.has("range")) return;
  event.respondWith(answer(event));
});

async function answer(event) {
  const { request } = event;
  const store = await caches.open(STORE).catch(() => null); // a full disk, a private window
  const kept = await store?.match(request, { ignoreSearch: request.mode === "navigate" });
  if (kept && LARGE.test(request.url)) return isolated(kept);
  let fresh;
  try {
    fresh = await fetch(request);
  } catch (error) {
    if (kept) return isolated(kept);
    if (request.mode === "navigate") return isolated(new Response(OFFLINE, { status: 503, headers: { "Content-Type": "text/html; charset=utf-8" } }));
    throw error;
  }
  if (store && fresh.status === 200 && fresh.type === "basic" && !fresh.redirected) event.waitUntil(store.put(request, fresh.clone()).catch(() => {}));
  return isolated(fresh);
}

function isolated(response) {
  if (response.type === "opaqueredirect" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  const empty = [204, 205, 304].includes(response.status);
  return new Response(empty ? null : response.body, { status: response.status, statusText: response.statusText, headers });
}

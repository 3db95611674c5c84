// For a site that is built with COURSE_OFFLINE=0: takes the service worker of earlier builds away, and all that it kept.

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(leave()));

async function leave() {
  const names = (await caches.keys()).filter((name) => name.startsWith("onnx-scroll "));
  await Promise.all(names.map((name) => caches.delete(name)));
  await registration.unregister();
}

/**
 * The service worker of the built page: while the network is there, everything comes from it; without one, the page opens as
 * the last visit that had one found it. The engine keeps the model's files itself.
 */

/** The build fills in what the page consists of, and a hash that changes with it. */
const FILES = ["%FILES%"];
const VERSION = "%VERSION%";

const worker = /** @type {any} */ (self); // the page's types know no service worker
const PREFIX = `mlc-controlnet page ${worker.registration.scope} `; // an origin may host other sites
const NAME = PREFIX + VERSION;
const kept = new Set(FILES.map((file) => new URL(file, worker.registration.scope).href));

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keepFiles()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(dropEarlierVersions()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  const url = request.mode === "navigate" ? request.url.replace(/(index\.html)?([?#].*)?$/, "") : request.url;
  if (kept.has(url)) event.respondWith(fetch(request).catch(() => answerKept(url)));
});

async function keepFiles() {
  const cache = await caches.open(NAME);
  await cache.addAll([...kept].map((url) => new Request(url, { cache: "no-cache" })));
  await worker.skipWaiting();
}

async function dropEarlierVersions() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== NAME) await caches.delete(name);
  }
}

/** @param {string} url */
async function answerKept(url) {
  return (await (await caches.open(NAME)).match(url)) ?? Response.error();
}

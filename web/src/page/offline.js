/**
 * The service worker of the built page: while the host answers, the page is the host's; where it does not, it opens as the
 * last visit that had an answer found it. The engine keeps the model's files itself.
 */

/** The build fills in what the page consists of, itself first, and a hash that changes with it. */
const FILES = ["%FILES%"];
const VERSION = "%VERSION%";

const worker = /** @type {any} */ (self); // the page's types know no service worker
const PREFIX = `mlc-controlnet page ${worker.registration.scope} `; // an origin may host other sites
const NAME = PREFIX + VERSION;
const addressOf = (/** @type {string} */ file) => new URL(file, worker.registration.scope).href;
const kept = new Set(FILES.map(addressOf));

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keepFiles()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(dropOldVersions()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  const url = request.mode === "navigate" ? request.url.replace(/(index\.html)?([?#].*)?$/, "") : request.url;
  if (url.startsWith(addressOf("assets/"))) event.respondWith(answerAsset(request));
  else if (kept.has(url)) event.respondWith(answerNewest(request, url));
});

/** Throws, and the browser tries again at the next visit, where the host's page is not the one of this version. */
async function keepFiles() {
  const [page, ...others] = [...kept].map((url) => new Request(url, { cache: "no-cache" }));
  const answer = await fetch(page);
  const assets = (await answer.clone().text()).match(/assets\/[\w.-]+/g);
  if (!assets?.every((name) => kept.has(addressOf(name)))) throw new Error(`${page.url} is not that of ${VERSION}`);
  const cache = await caches.open(NAME);
  await cache.addAll(others);
  await cache.put(page, answer);
  await worker.skipWaiting();
}

/** The one before this stays: a tab that is still open may want its files. */
async function dropOldVersions() {
  const earlier = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== NAME);
  for (const name of earlier.slice(0, -1)) await caches.delete(name);
}

/** Of any version: an asset's name changes with its content. @param {Request} request */
async function answerAsset(request) {
  return (await caches.match(request.url)) ?? fetch(request);
}

/** @param {Request} request @param {string} url */
async function answerNewest(request, url) {
  const answer = await fetch(request).catch(() => Response.error());
  const isDown = answer.type === "error" || answer.status >= 500;
  return (isDown && (await (await caches.open(NAME)).match(url))) || answer;
}

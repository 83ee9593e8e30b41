/**
 * The service worker of the built page. If the host answers, visitors get the host's page. If it does not, they get the page
 * of the last visit that had an answer. The engine itself keeps the model's files. Where a host cannot send the headers of
 * cross-origin isolation, they are added here.
 */

/** The build fills in the page's files, the page itself first, and a hash that changes with them. */
const FILES = ["%FILES%"];
const VERSION = "%VERSION%";

const worker = /** @type {any} */ (self); // the page's types know no service worker
const PREFIX = `mlc-controlnet page ${worker.registration.scope} `; // an origin may host other sites
const NAME = PREFIX + VERSION;
const addressOf = (/** @type {string} */ file) => new URL(file, worker.registration.scope).href;
const kept = new Set(FILES.map(addressOf));
const MODELS = addressOf("models.json");

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keepFiles()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(dropOldVersions()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  const url = request.mode === "navigate" ? request.url.replace(/(index\.html)?([?#].*)?$/, "") : request.url;
  if (url.startsWith(addressOf("assets/"))) event.respondWith(answerAsset(request));
  else if (kept.has(url)) event.respondWith(answerNewest(request, url));
});

/** Throws if the host's page is not of this version. The browser then tries again at the next visit. */
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

/** Keep the version before this one: a tab that is still open may need its files. */
async function dropOldVersions() {
  const earlier = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== NAME);
  for (const name of earlier.slice(0, -1)) await caches.delete(name);
}

/** Answer with an asset of any version: its name changes with its content. @param {Request} request */
async function answerAsset(request) {
  const kept = await caches.match(request.url);
  if (kept !== undefined) return isolated(kept);
  const answer = await fetch(request); // one that is not of every visit
  if (answer.ok) await keep(request.url, answer.clone());
  return isolated(answer);
}

/** @param {Request} request @param {string} url */
async function answerNewest(request, url) {
  const answer = await fetch(request).catch(() => Response.error());
  const isDown = answer.type === "error" || answer.status >= 500;
  if (url === MODELS && answer.ok) await keep(MODELS, answer.clone()); // the list changes without the page
  return isolated((isDown && (await (await caches.open(NAME)).match(url))) || answer);
}

/** @param {string} url @param {Response} answer */
async function keep(url, answer) {
  try {
    await (await caches.open(NAME)).put(new Request(url), answer);
  } catch {
    // no room: the next visit asks the host again
  }
}

/**
 * The same answer as one of a cross-origin isolated page, unless the host has said how it wants it.
 *
 * @param {Response} answer
 */
function isolated(answer) {
  if (answer.type === "error" || answer.headers.has("cross-origin-embedder-policy")) return answer;
  const headers = new Headers(answer.headers);
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-resource-policy", "same-origin");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

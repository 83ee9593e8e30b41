import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openBundle, purgeBundle } from "../../src/engine/load";
import { MemoryCache } from "./memory_cache";
import { FILES, type Files, makeManifest, manifestBytes, sha256 } from "./sample_bundle";

const URL_BASE = "https://site.example/demo/bundle/";
const SHARD = "params/00.bin";

/** The host: `files` by path, served in chunks of three bytes; every request is noted. */
let files: Files;
let requests: string[];

let cache: MemoryCache;
let deleted: string[];

beforeEach(() => {
  files = { ...FILES, "manifest.json": manifestBytes(makeManifest()) };
  requests = [];
  cache = new MemoryCache();
  deleted = [];
  vi.stubGlobal("caches", { open: async () => cache, delete: async (name: string) => deleted.push(name) });
  vi.stubGlobal("fetch", async (url: string, options: RequestInit) => {
    options.signal?.throwIfAborted();
    const path = url.slice(URL_BASE.length);
    requests.push(path);
    const bytes = files[path];
    if (bytes === undefined) return new Response(null, { status: 404, statusText: "Not Found" });
    const body = new ReadableStream({
      start(controller) {
        for (let i = 0; i < bytes.length; i += 3) controller.enqueue(bytes.slice(i, i + 3));
        controller.close();
      },
    });
    return new Response(body);
  });
});

afterEach(() => vi.unstubAllGlobals());

const hash = sha256(FILES[SHARD]);
const key = `https://sha256.invalid/${hash}`;

test("the bundle's hash is the manifest's", async () => {
  expect((await openBundle(URL_BASE)).sha256).toBe(sha256(files["manifest.json"]));
});

test("a folder without its last slash is the same folder", async () => {
  await openBundle("https://site.example/demo/bundle");
  expect(requests).toEqual(["manifest.json"]);
});

test("a folder without manifest is refused with its address", async () => {
  files = {};
  await expect(openBundle(URL_BASE)).rejects.toThrow(
    `${URL_BASE}manifest.json: got HTTP 404 Not Found, wanted a bundle's manifest.json; build a bundle`,
  );
});

test("a query goes with every request, and not into the cache or a message", async () => {
  const fetched: string[] = [];
  const serve = fetch;
  vi.stubGlobal("fetch", (url: string, options: RequestInit) => {
    fetched.push(url);
    return serve(url.replace("?token=s3cret", ""), options);
  });
  const bundle = await openBundle(`${URL_BASE}manifest.json?token=s3cret`);
  await bundle.readFile(SHARD);
  await bundle.keep();
  expect(fetched).toEqual([`${URL_BASE}manifest.json?token=s3cret`, `${URL_BASE}${SHARD}?token=s3cret`]);
  expect([...cache.entries.keys()]).toEqual([key, `${URL_BASE}manifest.json`]);
  expect(bundle.url).toBe(URL_BASE);
  files = {};
  await expect(openBundle(`${URL_BASE}?token=s3cret`)).rejects.not.toThrow("s3cret");
  await purgeBundle(`${URL_BASE}?token=s3cret`);
  expect(deleted).toEqual([`mlc-controlnet ${URL_BASE}`]);
});

test("a page over plain http is told so before anything is fetched", async () => {
  vi.stubGlobal("isSecureContext", false);
  vi.stubGlobal("crypto", {});
  await expect(openBundle(URL_BASE)).rejects.toThrow("got a page served over plain http, wanted https or localhost");
  expect(requests).toEqual([]);
});

test("where the cache is forbidden, as in a sandboxed frame, files come from the host", async () => {
  Object.defineProperty(globalThis, "caches", {
    configurable: true,
    get: () => {
      throw new DOMException("sandboxed", "SecurityError");
    },
  });
  expect((await openBundle(URL_BASE)).sha256).toBe(sha256(files["manifest.json"]));
});

describe("a connection that breaks", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** The result of `promise` after all its waiting; a rejection is a result. */
  async function afterWaiting(promise: Promise<unknown>) {
    const settled = promise.catch((error) => error);
    await vi.runAllTimersAsync();
    return settled;
  }

  /** A host that breaks off `failures` times before it serves. */
  function breakOff(failures: number, response: () => Promise<Response>) {
    const serve = fetch;
    vi.stubGlobal("fetch", (...request: Parameters<typeof fetch>) => (failures-- > 0 ? response() : serve(...request)));
  }
  const noAnswer = async () => Promise.reject(new TypeError("Failed to fetch"));
  const halfAnAnswer = async () => {
    let sent = false;
    const pull = (controller: ReadableStreamDefaultController) => {
      if (sent) controller.error(new TypeError("network error"));
      else controller.enqueue(Uint8Array.of(1, 2));
      sent = true;
    };
    return new Response(new ReadableStream({ pull }));
  };

  test.each([
    ["before an answer", noAnswer],
    ["in the middle", halfAnAnswer],
  ])("%s is tried again, and only the good bytes count", async (_, response) => {
    const bundle = await openBundle(URL_BASE);
    breakOff(2, response);
    let counted = 0;
    const read = bundle.readFile(SHARD, { onBytes: (bytes) => (counted += bytes) });
    expect(await afterWaiting(read)).toEqual(FILES[SHARD]);
    expect(counted).toBe(8);
  });

  test("for good is told from a wrong address", async () => {
    breakOff(9, noAnswer);
    expect(String(await afterWaiting(openBundle(URL_BASE)))).toContain("got no answer (Failed to fetch)");
  });

  test("for good opens the version that was kept whole, and only that", async () => {
    const bundle = await openBundle(URL_BASE);
    await bundle.readFile(SHARD);
    await bundle.keep();
    files["manifest.json"] = manifestBytes({ ...makeManifest(), format: 0 } as never);
    breakOff(9, noAnswer);
    const kept = (await afterWaiting(openBundle(URL_BASE))) as typeof bundle;
    expect(kept.sha256).toBe(bundle.sha256);
    expect(await kept.readFile(SHARD)).toEqual(FILES[SHARD]);
  });

  test("for good leaves what was downloaded of a newer version", async () => {
    await (await openBundle(URL_BASE)).keep();
    cache.entries.set("https://sha256.invalid/newer", Uint8Array.of(1));
    breakOff(9, noAnswer);
    const kept = (await afterWaiting(openBundle(URL_BASE))) as Awaited<ReturnType<typeof openBundle>>;
    await kept.keep();
    expect([...cache.entries.keys()].sort()).toEqual(["https://sha256.invalid/newer", `${URL_BASE}manifest.json`]);
  });

  test("for good in the middle is told with what came", async () => {
    const bundle = await openBundle(URL_BASE);
    breakOff(9, halfAnAnswer);
    const error = await afterWaiting(bundle.readFile(SHARD));
    expect(String(error)).toContain("got 2 bytes, then no more (network error), wanted 8 bytes, sha256");
  });
});

test("a file is read whole, and its bytes are counted as they come", async () => {
  const bundle = await openBundle(URL_BASE);
  const seen: number[] = [];
  const read = await bundle.readFile(SHARD, { onBytes: (bytes) => seen.push(bytes) });
  expect(read).toEqual(FILES[SHARD]);
  expect(read.buffer.byteLength).toBe(read.length); // a library is compiled from its whole buffer
  expect(seen).toEqual([3, 3, 2]);
});

test("a second visit reads the cache and counts the same bytes", async () => {
  await (await openBundle(URL_BASE)).readFile(SHARD);
  const seen: number[] = [];
  await (await openBundle(URL_BASE)).readFile(SHARD, { onBytes: (bytes) => seen.push(bytes) });
  expect(requests.filter((path) => path === SHARD)).toHaveLength(1);
  expect(seen).toEqual([8]);
});

test.each([
  ["altered", Uint8Array.from(FILES[SHARD], (byte, i) => (i === 5 ? 1 : byte))],
  ["short", FILES[SHARD].slice(0, 6)],
])("a file that is %s on the host is named with both hashes, and not cached", async (kind, bytes) => {
  files[SHARD] = bytes;
  const bundle = await openBundle(URL_BASE);
  let counted = 0;
  const read = bundle.readFile(SHARD, { onBytes: (count) => (counted += count) });
  await expect(read).rejects.toThrow(
    `${URL_BASE}${SHARD}: got ${bytes.length} bytes, sha256 ${sha256(bytes)} (${kind}), wanted 8 bytes, sha256 ${hash};`,
  );
  expect(cache.entries.has(key)).toBe(false);
  expect(counted).toBe(0);
});

test.each([1, 3, 30])(
  "a file that is %d bytes too long on the host is not read to its end, and not cached",
  async (more) => {
    files[SHARD] = Uint8Array.of(...FILES[SHARD], ...new Uint8Array(more));
    let counted = 0;
    const read = (await openBundle(URL_BASE)).readFile(SHARD, { onBytes: (count) => (counted += count) });
    await expect(read).rejects.toThrow(
      `${URL_BASE}${SHARD}: got more than 8 bytes (long), wanted 8 bytes, sha256 ${hash};`,
    );
    expect(cache.entries.has(key)).toBe(false);
    expect(counted).toBe(0);
  },
);

test("a bad cache entry is replaced from the host", async () => {
  cache.entries.set(key, Uint8Array.of(1, 2, 3));
  expect(await (await openBundle(URL_BASE)).readFile(SHARD)).toEqual(FILES[SHARD]);
  expect(cache.entries.get(key)).toEqual(FILES[SHARD]);
});

test("a bad cache entry and a bad host end in an error, without the entry", async () => {
  cache.entries.set(key, Uint8Array.of(1, 2, 3));
  files[SHARD] = Uint8Array.of(4);
  await expect((await openBundle(URL_BASE)).readFile(SHARD)).rejects.toThrow("(short)");
  expect(cache.entries.has(key)).toBe(false);
});

test("a full cache does not stop the download", async () => {
  cache.put = async () => Promise.reject(new DOMException("full", "QuotaExceededError"));
  expect(await (await openBundle(URL_BASE)).readFile(SHARD)).toEqual(FILES[SHARD]);
});

test("without the Cache API files come from the host each time", async () => {
  vi.stubGlobal("caches", undefined);
  const bundle = await openBundle(URL_BASE);
  await bundle.readFile(SHARD);
  await bundle.readFile(SHARD);
  expect(requests.filter((path) => path === SHARD)).toHaveLength(2);
});

test("an aborted download ends with AbortError and is not told as a broken connection", async () => {
  const bundle = await openBundle(URL_BASE);
  await expect(bundle.readFile(SHARD, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
});

describe("the cache", () => {
  test("drops files of earlier versions of the bundle and keeps the present ones", async () => {
    cache.entries.set("https://sha256.invalid/old", Uint8Array.of(1));
    const bundle = await openBundle(URL_BASE);
    await bundle.readFile(SHARD);
    await bundle.keep();
    expect([...cache.entries.keys()]).toEqual([key, `${URL_BASE}manifest.json`]);
  });

  test("that is full drops the version before, manifest and all, before the present one goes without", async () => {
    cache.entries.set("https://sha256.invalid/old", new Uint8Array(9));
    cache.entries.set(`${URL_BASE}manifest.json`, new Uint8Array(9));
    cache.room = 20;
    await (await openBundle(URL_BASE)).readFile(SHARD);
    expect([...cache.entries.keys()]).toEqual([key]);
  });

  test("records no version that it has no room for", async () => {
    const bundle = await openBundle(URL_BASE);
    cache.room = 7;
    await bundle.readFile(SHARD);
    cache.room = Number.POSITIVE_INFINITY;
    await bundle.keep();
    expect([...cache.entries.keys()]).toEqual([]);
  });

  test("that is full when a further component comes keeps the manifest of what is there", async () => {
    const bundle = await openBundle(URL_BASE);
    await bundle.readFile(SHARD);
    await bundle.keep();
    cache.room = 0;
    await bundle.readFile("samplers.json");
    expect([...cache.entries.keys()]).toEqual([key, `${URL_BASE}manifest.json`]);
  });

  test("is deleted by purgeBundle", async () => {
    await purgeBundle(URL_BASE);
    expect(deleted).toEqual([`mlc-controlnet ${URL_BASE}`]);
  });
});

/** Hosts, networks and stores that fail, with a real server: each time the bundle is there at last, or the error says why not. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { codeOf } from "../../src/engine/errors";
import { openBundle } from "../../src/engine/load";
import { MemoryCache, MemoryLocks } from "./memory_cache";
import { type Fault, MisbehavingHost } from "./misbehaving_host";
import { FILES, makeManifest, manifestBytes, sha256 } from "./sample_bundle";

vi.mock("../../src/engine/patience", () => ({ RETRY_DELAYS_MS: [5, 10, 300], STALL_MS: 400 }));

const SHARD = "params/00.bin";
const MANIFEST = "manifest.json";
/** Large enough to arrive in several pieces; not compressible. */
const shard = Uint8Array.from({ length: 300_000 }, (_, i) => Math.imul(i ^ (i >> 7), 0x9e3779b1) >>> 24);
const files = { ...FILES, [SHARD]: shard };
const key = `https://sha256.invalid/${sha256(shard)}`;

let host: MisbehavingHost;
let cache: MemoryCache;

beforeEach(async () => {
  host = await MisbehavingHost.start({ ...files, [MANIFEST]: manifestBytes(makeManifest(files)) });
  cache = new MemoryCache();
  vi.stubGlobal("caches", { open: async () => cache });
  vi.stubGlobal("navigator", { locks: new MemoryLocks() });
});

afterEach(async () => {
  vi.unstubAllGlobals();
  await host.stop();
});

const readShard = async (onBytes?: (bytes: number) => void, signal?: AbortSignal) =>
  (await openBundle(host.url, signal)).readFile(SHARD, { onBytes, signal });
const asked = (path: string) => host.requests.filter((request) => request.split(" ")[0] === path);
const fail = (path: string, ...faults: Fault[]) => host.faults.set(path, faults);
const failAlways = (path: string, fault: Fault) => host.always.set(path, fault);

/** By its hash: toEqual takes seconds for so many numbers. */
function expectShard(read: Uint8Array | undefined, wanted: Uint8Array = shard) {
  expect(read && sha256(read)).toBe(sha256(wanted));
}

/** The shard, its bytes counted once each, and kept. */
async function expectGood() {
  let counted = 0;
  expectShard(await readShard((bytes) => (counted += bytes)));
  expect(counted).toBe(shard.length);
  expectShard(cache.entries.get(key));
}

/** No state stays that only a visitor could clear: with a good host the next try works. */
async function expectGoodNextTime() {
  host.always.clear();
  host.faults.clear();
  await expectGood();
}

describe("a connection that is cut", () => {
  test.each([1, 65_536, 299_999])("after %d bytes of a shard is taken up there", async (cutAfter) => {
    fail(SHARD, { cutAfter });
    await expectGood();
    const [first, second] = asked(SHARD);
    expect([first, asked(SHARD).length]).toEqual([SHARD, 2]);
    expect(second).toMatch(new RegExp(`^${SHARD} bytes=\\d+-$`));
  });

  test("before the first byte of a shard is made again", async () => {
    fail(SHARD, { cutAfter: 0 });
    await expectGood();
    expect(asked(SHARD)).toEqual([SHARD, SHARD]);
  });

  test("again and again goes on as long as bytes come", async () => {
    fail(SHARD, ...Array.from({ length: 12 }, () => ({ cutAfter: 20_000 })));
    await expectGood();
    expect(asked(SHARD)).toHaveLength(13);
  });

  test.each([0, 1, 700])("after %d bytes of the manifest is made again", async (cutAfter) => {
    fail(MANIFEST, { cutAfter });
    await expectGood();
  });

  test("for good is told, and nothing half is kept", async () => {
    failAlways(SHARD, { cutAfter: 100_000, knowsNoRanges: true });
    let counted = 0;
    const error = await readShard((bytes) => (counted += bytes)).catch((reason) => reason);
    expect(codeOf(error)).toBe("no-connection");
    expect(error.message).toMatch(/got \d+ bytes, then no more/);
    expect([counted, cache.entries.size]).toEqual([0, 0]);
    await expectGoodNextTime();
  });

  test("in silence counts as cut after a minute without a byte", async () => {
    fail(SHARD, { hangsAfter: 1000 });
    await expectGood();
    expect(asked(SHARD)[1]).toBe(`${SHARD} bytes=1000-`);
  });
});

describe("a host", () => {
  test("without ranges sends the whole file again", async () => {
    failAlways(SHARD, { knowsNoRanges: true });
    fail(SHARD, { cutAfter: 100_000 });
    await expectGood();
  });

  test("that gzips is asked for no range, for it would be one of the compressed bytes", async () => {
    failAlways(SHARD, { gzips: true });
    fail(SHARD, { gzips: true, cutAfter: 100_000 });
    failAlways(MANIFEST, { gzips: true });
    await expectGood();
    expect(asked(SHARD)).toEqual([SHARD, SHARD]);
  });

  test("that sends a wrong MIME type is believed all the same", async () => {
    for (const path of [SHARD, MANIFEST]) failAlways(path, { type: "text/html" });
    await expectGood();
  });

  test.each([500, 502, 503, 429])("that answers %d for a while is asked again", async (status) => {
    fail(SHARD, { status }, { status });
    fail(MANIFEST, { status });
    await expectGood();
  });

  test("that answers 500 for good is told from a wrong address", async () => {
    failAlways(SHARD, { status: 500 });
    const error = await readShard().catch((reason) => reason);
    expect([codeOf(error), error.got]).toEqual(["no-connection", "HTTP 500 Internal Server Error"]);
    await expectGoodNextTime();
  });

  test("that answers 500 opens the version that was kept", async () => {
    const bundle = await openBundle(host.url);
    await bundle.readFile(SHARD);
    await bundle.keep();
    failAlways(MANIFEST, { status: 500 });
    expect((await openBundle(host.url)).sha256).toBe(bundle.sha256);
  });

  test("that answers with a page where it has no file is told by that", async () => {
    failAlways(MANIFEST, { bytes: new TextEncoder().encode("<!doctype html>"), type: "text/html" });
    await expect(openBundle(host.url)).rejects.toMatchObject({ got: "a web page", code: "bad-bundle" });
    await expectGoodNextTime();
  });

  test.each<[string, Uint8Array]>([
    ["a wrong byte", Uint8Array.from(shard, (byte, i) => (i === 200_000 ? byte ^ 1 : byte))],
    ["the half", shard.slice(0, 150_000)],
    ["too much", Uint8Array.from({ length: shard.length + 1 })],
  ])("that has %s is told, and nothing is kept", async (_, bytes) => {
    failAlways(SHARD, { bytes });
    const error = await readShard().catch((reason) => reason);
    expect([codeOf(error), cache.entries.size]).toEqual(["bundle-changed", 0]);
    await expectGoodNextTime();
  });

  test("that changed the file between two parts is asked for the whole", async () => {
    const other = shard.map((byte) => byte ^ 1);
    fail(SHARD, { cutAfter: 100_000, bytes: other });
    await expectGood();
    expect(asked(SHARD).map((request) => request.includes("bytes="))).toEqual([false, true, false]);
  });
});

describe("two tabs", () => {
  test("share one download", async () => {
    const tabs = await Promise.all([readShard(), readShard()]);
    for (const read of tabs) expectShard(read);
    expect(asked(SHARD)).toHaveLength(1);
  });

  test("of which one fails: the other goes on by itself", async () => {
    fail(SHARD, { status: 404 });
    const [first, second] = await Promise.allSettled([readShard(), readShard()]);
    expect([first.status, second.status].sort()).toEqual(["fulfilled", "rejected"]);
  });

  test("of which one is cancelled while it waits ends at once", async () => {
    const controller = new AbortController();
    fail(SHARD, { hangsAfter: 1000 });
    const first = readShard();
    await vi.waitUntil(() => asked(SHARD).length === 1);
    const second = readShard(undefined, controller.signal);
    await vi.waitUntil(() => asked(MANIFEST).length === 2);
    controller.abort();
    await expect(second).rejects.toMatchObject({ name: "AbortError" });
    expectShard(await first);
  });
});

describe("a store", () => {
  test("whose quota is exceeded costs no picture", async () => {
    cache.room = 1000;
    expectShard(await readShard());
    expect(cache.entries.size).toBe(0);
    cache.room = Number.POSITIVE_INFINITY;
    await expectGoodNextTime();
  });

  test("with a damaged entry gets it again", async () => {
    cache.entries.set(key, shard.slice(1));
    await expectGood();
  });

  test("whose entry cannot be read is passed by", async () => {
    cache.match = async () => Promise.reject(new DOMException("lost", "UnknownError"));
    expectShard(await readShard());
  });

  test("that a closed tab left with a part of the files is used for these", async () => {
    await readShard();
    host.requests.length = 0;
    const bundle = await openBundle(host.url);
    expect([...(await bundle.kept())]).toEqual([SHARD]);
    for (const path of Object.keys(files)) await bundle.readFile(path);
    expect(asked(SHARD)).toEqual([]);
  });
});

describe("a cancel", () => {
  test.each([MANIFEST, SHARD])("during %s ends it at once, and the next try works", async (path) => {
    const controller = new AbortController();
    fail(path, { hangsAfter: 10 });
    const read = readShard(undefined, controller.signal);
    await vi.waitUntil(() => asked(path).length === 1);
    controller.abort();
    await expect(read).rejects.toMatchObject({ name: "AbortError" });
    await expectGoodNextTime();
  });

  test("keeps the files that had come whole, and nothing of the others", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    failAlways(SHARD, { hangsAfter: 10 });
    const bundle = await openBundle(host.url, signal);
    const reads = Object.keys(files).map((path) => bundle.readFile(path, { signal }));
    await vi.waitUntil(() => cache.entries.size === reads.length - 1);
    controller.abort();
    const ends = await Promise.allSettled(reads);
    expect(ends.filter(({ status }) => status === "rejected")).toHaveLength(1);
    expect(cache.entries.has(key)).toBe(false);
    host.requests.length = 0;
    host.always.clear();
    const again = await openBundle(host.url);
    for (const [path, bytes] of Object.entries(files)) expectShard(await again.readFile(path), bytes);
    expect(host.requests).toEqual([MANIFEST, SHARD]);
  });

  test("between two attempts ends the waiting", async () => {
    const controller = new AbortController();
    failAlways(SHARD, { status: 500 });
    const read = readShard(undefined, controller.signal);
    await vi.waitUntil(() => asked(SHARD).length === 3);
    controller.abort();
    await expect(read).rejects.toMatchObject({ name: "AbortError" });
    expect(asked(SHARD)).toHaveLength(3);
  });
});

test("a new version on the host while the old one runs is told as what it is", async () => {
  const bundle = await openBundle(host.url);
  const newer = { ...files, [SHARD]: shard.map((byte) => byte ^ 1) };
  Object.assign(host.files, newer, { [MANIFEST]: manifestBytes(makeManifest(newer)) });
  const error = await bundle.readFile(SHARD).catch((reason) => reason);
  expect(codeOf(error)).toBe("bundle-changed");
  expect(error.remedy).toContain("load the page again");
  expectShard(await (await openBundle(host.url)).readFile(SHARD), newer[SHARD]);
});

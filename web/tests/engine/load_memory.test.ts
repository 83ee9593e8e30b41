/** How much memory a download takes in JavaScript, however large the bundle is. */

import { randomFillSync } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, expect, test, vi } from "vitest";
import { openBundle } from "../../src/engine/load";
import type { Library, MemoryMode } from "../../src/engine/manifest";
import { Weights } from "../../src/engine/weights";
import { FILES, keptParams, makeLibrary, makeManifest, manifestBytes, sha256 } from "./sample_bundle";

/** The largest shard that a build writes. */
const SHARD_BYTES = 32 * 2 ** 20;
const SHARDS = 5;

/** tvmjs and a GPU that take each weight and keep nothing of it. */
const tvm = {
  beginScope: () => {},
  endScope: () => {},
  detachFromCurrentScope: <T>(object: T) => object,
  empty: () => ({ copyFromRawBytes: () => {} }),
};
const gpu = { sync: async () => {} };

afterEach(() => vi.unstubAllGlobals());

test("168 MB of weights pass through 100 MB and one shard", async () => {
  const shard = randomFillSync(new Uint8Array(SHARD_BYTES));
  const hash = sha256(shard);
  const paths = Array.from({ length: SHARDS }, (_, i) => `params/${String(i).padStart(2, "0")}.bin`);
  const records = paths.map((_, i) => {
    return {
      name: `unet.${i}`,
      shape: [SHARD_BYTES / 2],
      dtype: "float16",
      shard: i,
      byte_offset: 0,
      bytes: SHARD_BYTES,
    };
  });
  const base = makeManifest();
  const manifest = makeManifest(FILES, {
    components: Object.fromEntries(
      Object.entries(base.components).map(([name, entry]) => [
        name,
        { ...entry, params: records.map((one) => one.name) },
      ]),
    ),
    params: { ...base.params, bytes: SHARDS * SHARD_BYTES, shards: paths, records },
    files: [
      ...base.files.filter(({ path }) => !path.startsWith("params/")),
      ...paths.map((path) => ({ path, bytes: SHARD_BYTES, sha256: hash })),
    ],
  });
  const description = manifestBytes(manifest);
  const server = createServer((request, response) =>
    response.end(request.url?.endsWith(".json") ? description : shard),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  let arrived = 0;
  // A cache that takes the bytes and holds none, as a browser's does: they go to the disk.
  vi.stubGlobal("caches", {
    open: async () => ({ match: async () => undefined, put: async () => {}, keys: async () => [] }),
  });
  try {
    const bundle = await openBundle(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    const mode = { kept_params: keptParams(SHARDS) } as unknown as MemoryMode;
    const library: Library = makeLibrary({ dtype: "float16" });
    const weights = new Weights(tvm as never, gpu as never, {} as never, bundle, library, mode, () => {});
    setFlagsFromString("--expose-gc");
    const collect: () => void = runInNewContext("gc");
    const used = () => {
      collect(); // what is still referenced counts, not when a collector comes round
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    const before = used();
    let peak = 0;
    const timer = setInterval(() => {
      peak = Math.max(peak, used() - before);
    }, 100);
    await weights.fetch(weights.lacking(["unet"]), { onBytes: (bytes) => (arrived += bytes) });
    clearInterval(timer);
    expect(arrived).toBe(SHARDS * SHARD_BYTES);
    expect(peak).toBeGreaterThan(SHARD_BYTES); // it was measured
    expect(peak).toBeLessThan(100e6 + SHARD_BYTES);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}, 60_000);

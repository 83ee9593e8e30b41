import { beforeEach, expect, test, vi } from "vitest";
import { openBundle, purgeBundle } from "../../src/engine/load";
import { keepOwnBundle, keptBundle, keptBytes, type OwnFile } from "../../src/engine/own_bundle";
import { MemoryCache } from "./memory_cache";
import { FILES, type Files, makeLibrary, makeManifest, manifestBytes } from "./sample_bundle";

let stores: Map<string, MemoryCache>;
const fetched = vi.fn(async () => new Response(null, { status: 404 }));

beforeEach(() => {
  stores = new Map();
  vi.stubGlobal("location", new URL("https://site.example/demo/"));
  vi.stubGlobal("fetch", fetched);
  vi.stubGlobal("caches", {
    async open(name: string) {
      const store = stores.get(name) ?? new MemoryCache();
      stores.set(name, store);
      return store;
    },
    has: async (name: string) => stores.has(name),
    delete: async (name: string) => stores.delete(name),
  });
  fetched.mockClear();
});

function folder(changes: Record<string, Uint8Array<ArrayBuffer> | undefined> = {}): OwnFile[] {
  const files = { ...FILES, "manifest.json": manifestBytes(makeManifest()), ...changes };
  return Object.entries(files)
    .filter(([, bytes]) => bytes !== undefined)
    .map(([path, bytes]) => ({ path: `circles-webgpu/${path}`, file: new Blob([bytes as Uint8Array<ArrayBuffer>]) }));
}

test("a folder becomes a bundle that opens without a host, under the same address each time", async () => {
  const url = await keepOwnBundle(folder());
  expect(await keepOwnBundle(folder())).toBe(url);
  expect(url).toMatch(/^https:\/\/site\.example\/demo\/own-bundle\/[0-9a-f]{16}\/$/);
  const bundle = await openBundle(url);
  for (const [path, bytes] of Object.entries(FILES)) expect(await bundle.readFile(path)).toEqual(bytes);
  expect(fetched).not.toHaveBeenCalled();
});

test("what is kept of a bundle is told without a request", async () => {
  expect(await keptBundle("./bundle/")).toBeUndefined();
  expect(stores.size).toBe(0); // asking makes no cache
  const url = await keepOwnBundle(folder());
  const bytes = Object.values(FILES).reduce((sum, { length }) => sum + length, 0);
  expect(await keptBundle(url)).toMatchObject({ bytes, manifest: { model: { name: "circles" } } });
  await purgeBundle(url);
  expect(await keptBundle(url)).toBeUndefined();
  await expect(openBundle(url)).rejects.toThrow("own bundle: got nothing in the browser's storage, wanted its files");
  expect(fetched).not.toHaveBeenCalled();
});

test("the files of a download that was given up are counted, so that they can be removed", async () => {
  expect([await keptBytes("./bundle/"), stores.size]).toEqual([0, 0]);
  const files: Record<string, Uint8Array<ArrayBuffer>> = { ...FILES, "manifest.json": manifestBytes(makeManifest()) };
  vi.stubGlobal(
    "fetch",
    async (url: string) => new Response(files[url.slice("https://site.example/demo/bundle/".length)]),
  );
  const bundle = await openBundle("./bundle/");
  await bundle.readFile("params/00.bin");
  expect(await keptBundle("./bundle/")).toBeUndefined();
  expect(await keptBytes("./bundle/")).toBe(FILES["params/00.bin"].length);
  await purgeBundle("./bundle/");
  expect(await keptBytes("./bundle/")).toBe(0);
});

test("of a bundle that is open, other libraries than its own are not still to be fetched", async () => {
  const processor = { file: "circles-float32-wasm.wasm", device: "wasm", instruction_set: "wasm-simd128" };
  const licences = { "THIRD_PARTY_LICENSES.txt": Uint8Array.of(77, 73, 84) }; // no browser fetches them
  const files: Files = { ...FILES, ...licences, [processor.file]: Uint8Array.of(0, 97, 115, 109) };
  const manifest = makeManifest(files, { libraries: [makeLibrary(), makeLibrary(processor)] });
  const served: Files = { ...files, "manifest.json": manifestBytes(manifest) };
  vi.stubGlobal(
    "fetch",
    async (url: string) => new Response(served[url.slice("https://site.example/demo/bundle/".length)]),
  );
  const bundle = await openBundle("./bundle/");
  await bundle.readFile("samplers.json");
  await bundle.keep();
  const sizes = ["params/00.bin", "tokenizer/tokenizer.json", "circles-float32.wasm"].map((path) => files[path].length);
  const missingBytes = sizes.reduce((sum, size) => sum + size); // with the largest library, as models.json has it
  expect(await keptBundle("./bundle/")).toMatchObject({ bytes: FILES["samplers.json"].length, missingBytes });
  for (const path of [processor.file, "params/00.bin", "tokenizer/tokenizer.json"]) await bundle.readFile(path);
  expect(await keptBundle("./bundle/")).toMatchObject({ missingBytes: 0 });
});

test.each([
  ["no manifest", { "manifest.json": undefined }, "folder: got no manifest.json, wanted the folder of a bundle"],
  ["no shard", { "params/00.bin": undefined }, "params/00.bin: got no such file in the folder, wanted"],
  ["a short shard", { "params/00.bin": Uint8Array.of(1) }, "params/00.bin: got 1 bytes, wanted"],
  [
    "an altered shard",
    { "params/00.bin": FILES["params/00.bin"].map((byte) => byte ^ 1) as Uint8Array<ArrayBuffer> },
    "params/00.bin: got other bytes than its manifest says, wanted",
  ],
])("a folder with %s is refused, and nothing of it stays", async (_, changes, message) => {
  await expect(keepOwnBundle(folder(changes))).rejects.toThrow(message);
  expect(stores.size).toBe(0);
});

test("a bundle that is here survives a folder that lacks a file, and a full disk", async () => {
  const url = await keepOwnBundle(folder());
  await expect(keepOwnBundle(folder({ "params/00.bin": undefined }))).rejects.toThrow("no such file in the folder");
  for (const store of stores.values()) store.room = 100;
  await expect(keepOwnBundle(folder())).rejects.toThrow("no room for the bundle");
  const bundle = await openBundle(url);
  for (const [path, bytes] of Object.entries(FILES)) expect(await bundle.readFile(path)).toEqual(bytes);
});

test("a folder of which the manifest alone finds no room is refused, and nothing of it stays", async () => {
  const store = new MemoryCache();
  store.room = Object.values(FILES).reduce((sum, { length }) => sum + length, 0);
  vi.stubGlobal("caches", {
    open: async () => store,
    has: async () => true,
    delete: async () => store.entries.clear(),
  });
  await expect(keepOwnBundle(folder())).rejects.toThrow("storage: got no room for the bundle in the browser's storage");
  expect(store.entries.size).toBe(0);
});

test("where there is no room, nothing stays and the visitor is told", async () => {
  const store = new MemoryCache();
  store.room = 100;
  vi.stubGlobal("caches", {
    open: async () => store,
    has: async () => true,
    delete: async () => store.entries.clear(),
  });
  await expect(keepOwnBundle(folder())).rejects.toThrow("storage: got no room for the bundle in the browser's storage");
  expect(store.entries.size).toBe(0);
});

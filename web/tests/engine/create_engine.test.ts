import { beforeEach, expect, test, vi } from "vitest";
import { createEngine } from "../../src/engine/create_engine";
import { openDevice } from "../../src/engine/device";
import { Engine } from "../../src/engine/engine";
import { UserError } from "../../src/engine/errors";
import { openBundle } from "../../src/engine/load";
import { MemoryFullError } from "../../src/engine/memory";
import { FILES, MEMORY, makeManifest } from "./sample_bundle";

vi.mock("../../src/engine/engine", () => ({ Engine: { load: vi.fn() } }));
vi.mock("../../src/engine/device", () => ({ openDevice: vi.fn() }));
vi.mock("../../src/engine/load", () => ({ openBundle: vi.fn() }));

const sample = { name: "sample", shape: [1, 4, 2, 3], dtype: "float32" };
const full = new MemoryFullError({ name: "resident", ...MEMORY.resident });
/** The mode of each engine that was to be loaded. */
const tried = () => vi.mocked(Engine.load).mock.calls.map(([, , { name }]) => name);

beforeEach(() => {
  vi.resetAllMocks();
  vi.stubGlobal("navigator", {});
  const { components, ...rest } = makeManifest();
  const manifest = { ...rest, components: { ...components, unet: { ...components.unet, inputs: [sample] } } };
  vi.mocked(openBundle).mockResolvedValue({
    url: "https://site.example/",
    manifest,
    sha256: "abc",
    readFile: async (path) => FILES[path],
    kept: async () => new Set<string>(),
    keep: async () => {},
  });
  const [library] = manifest.libraries;
  vi.mocked(openDevice).mockImplementation(async () => {
    return { device: {} as GPUDevice, library, description: "acme", maxBufferBytes: 2 ** 30 };
  });
  vi.mocked(Engine.load).mockResolvedValue({} as Engine);
});

test("a GPU that is large enough holds all weights, and the engine says how much that is", async () => {
  const { info } = await createEngine({ bundleUrl: "./" });
  expect(tried()).toEqual(["resident"]);
  expect(info.memory).toEqual({ name: "resident", ...MEMORY.resident });
  expect(info.memoryPlan).toEqual(MEMORY);
});

test("a GPU that looks too small is told so before the model is loaded", async () => {
  const order: string[] = [];
  const [library] = makeManifest().libraries;
  const small = { device: {} as GPUDevice, library, description: "acme", maxBufferBytes: 1 };
  vi.mocked(openDevice).mockResolvedValue(small);
  vi.mocked(Engine.load).mockImplementation(async () => {
    order.push("load");
    return {} as Engine;
  });
  await createEngine({ bundleUrl: "./", onNotice: (notice) => order.push(notice) });
  expect(order).toEqual([expect.stringContaining("GPU memory: got about 1 MB"), "load"]);
});

test("a GPU that is full while weights come gets a second try with fewer, on a new device", async () => {
  vi.mocked(Engine.load).mockRejectedValueOnce(full);
  const { info } = await createEngine({ bundleUrl: "./" });
  expect(tried()).toEqual(["resident", "reduced"]);
  expect(openDevice).toHaveBeenCalledTimes(2);
  expect(info.memory.name).toBe("reduced");
});

test("a second failure is told", async () => {
  vi.mocked(Engine.load).mockRejectedValue(full);
  await expect(createEngine({ bundleUrl: "./" })).rejects.toBe(full);
  expect(tried()).toEqual(["resident", "reduced"]);
});

test.each(["resident", "reduced"] as const)("what was chosen, %s, is not overruled", async (memory) => {
  vi.mocked(Engine.load).mockRejectedValue(full);
  await expect(createEngine({ bundleUrl: "./", memory })).rejects.toBe(full);
  expect(tried()).toEqual([memory]);
});

test("another failure is not tried again", async () => {
  vi.mocked(Engine.load).mockRejectedValue(new UserError("params/00.bin", "short", "long", "copy"));
  await expect(createEngine({ bundleUrl: "./" })).rejects.toThrow("params/00.bin");
  expect(tried()).toEqual(["resident"]);
});

test("a misspelt option is refused before anything is fetched", async () => {
  await expect(createEngine({ bundleUrl: "./", memroy: "reduced" } as never)).rejects.toThrow(
    "key of the options: got 'memroy'",
  );
  expect(openBundle).not.toHaveBeenCalled();
});

test("what the bundle is, is told before its first large file is fetched", async () => {
  const onManifest = vi.fn(() => expect(Engine.load).not.toHaveBeenCalled());
  await createEngine({ bundleUrl: "./", onManifest });
  expect(onManifest).toHaveBeenCalledTimes(1);
});

test("an abort of loading or of a call is an AbortError, whatever reason the caller gives", async () => {
  const aborted = { name: "AbortError", message: "the call was aborted: the visitor has left" };
  const signal = AbortSignal.abort("the visitor has left");
  vi.mocked(openBundle).mockImplementationOnce(async (_, given) => Promise.reject(given?.reason));
  await expect(createEngine({ bundleUrl: "./", signal })).rejects.toMatchObject(aborted);
  const engine = await createEngine({ bundleUrl: "./" });
  await expect(engine.generate({ prompt: "gold" }, { signal })).rejects.toMatchObject(aborted);
  await expect(engine.generateAll({ prompt: ["gold"] }, { signal })).rejects.toMatchObject(aborted);
});

test("a call after unload says that the engine was unloaded, and another unload does nothing", async () => {
  const unload = vi.fn();
  vi.mocked(Engine.load).mockResolvedValue({ unload } as unknown as Engine);
  const engine = await createEngine({ bundleUrl: "./" });
  await engine.unload();
  await engine.unload();
  await expect(engine.generate({ prompt: "gold" })).rejects.toThrow("the engine was unloaded");
});

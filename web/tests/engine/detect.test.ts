import { beforeEach, expect, test, vi } from "vitest";
import { detect } from "../../src/engine/detect";
import { UserError } from "../../src/engine/errors";
import { openBundle } from "../../src/engine/load";
import { FILES, MEMORY, makeLibrary, makeManifest } from "./sample_bundle";

vi.mock("../../src/engine/load", () => ({ openBundle: vi.fn() }));

const sample = { name: "sample", shape: [1, 4, 2, 3], dtype: "float32" };
const half = makeLibrary({ file: "circles-float16.wasm", dtype: "float16", required_features: ["shader-f16"] });
const bundleUrl = "https://site.example/bundle/";

let adapter: object | null;

beforeEach(() => {
  vi.stubGlobal("isSecureContext", true);
  adapter = {
    info: { vendor: "acme", architecture: "one", device: "", description: "", isFallbackAdapter: false },
    features: new Set(["shader-f16", "subgroups"]),
    limits: { maxBufferSize: 2048, maxStorageBuffersPerShaderStage: 10 },
    requestDevice: vi.fn(),
  };
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => adapter } });
  const { components, ...rest } = makeManifest(FILES, { libraries: [half, makeLibrary()] });
  const manifest = { ...rest, components: { ...components, unet: { ...components.unet, inputs: [sample] } } };
  vi.mocked(openBundle).mockResolvedValue({
    url: bundleUrl,
    manifest,
    sha256: "abc",
    readFile: vi.fn(),
    kept: async () => new Set(["params/00.bin"]),
    keep: vi.fn(),
  });
});

test("the GPU is described without opening a device", async () => {
  expect(await detect()).toEqual({
    adapter: {
      description: "acme one",
      isSoftware: false,
      features: ["shader-f16", "subgroups"],
      limits: { maxBufferSize: 2048, maxStorageBuffersPerShaderStage: 10 },
      estimatedMemoryBytes: 8 * 2048,
    },
  });
  expect((adapter as GPUAdapter).requestDevice).not.toHaveBeenCalled();
});

test("of a bundle it says what would run, and how much is to be fetched", async () => {
  const { bundle, variant, problem } = await detect({ bundleUrl });
  expect(problem).toBeUndefined();
  expect(variant).toEqual({
    file: "circles-float16.wasm",
    device: "webgpu",
    reason: "a GPU that computes in float16",
    dtype: "float16",
    memory: { name: "resident", ...MEMORY.resident },
  });
  const size = (path: string) => FILES[path].length;
  const needed = ["params/00.bin", "tokenizer/tokenizer.json", "samplers.json"]; // and the float16 library, which FILES lacks
  expect(bundle?.bytes).toBe(needed.reduce((sum, path) => sum + size(path), 0));
  expect(bundle?.keptBytes).toBe(size("params/00.bin"));
});

test("without shader-f16 the float32 library would run", async () => {
  Object.assign(adapter as object, { features: new Set() });
  expect((await detect({ bundleUrl })).variant?.dtype).toBe("float32");
});

test.each<[string, () => void, string, boolean]>([
  ["no WebGPU", () => vi.stubGlobal("navigator", {}), "no-webgpu", false],
  ["no adapter", () => (adapter = null), "no-adapter", false],
  [
    "a GPU that is too small",
    () => Object.assign(adapter as object, { limits: { maxBufferSize: 1 } }),
    "gpu-lacks",
    true,
  ],
])(
  "%s is a problem with a code and a remedy, and the bundle is told all the same",
  async (_, spoil, code, hasAdapter) => {
    spoil();
    const found = await detect({ bundleUrl });
    expect(found.problem).toBeInstanceOf(UserError);
    expect(found.problem?.code).toBe(code);
    expect(found.variant).toBeUndefined();
    expect(found.bundle?.sha256).toBe("abc");
    expect(found.adapter !== undefined).toBe(hasAdapter);
  },
);

test("without WebGPU nothing is a problem if the bundle has a library for the processor", async () => {
  vi.stubGlobal("navigator", {});
  const { url, manifest, ...bundle } = await openBundle(bundleUrl);
  const [library] = manifest.libraries;
  const onProcessor = { ...library, file: "circles.wasm", device: "wasm", instruction_set: "wasm-simd128" };
  const memory = { ...manifest.memory, [onProcessor.file]: MEMORY };
  const libraries = [...manifest.libraries, onProcessor];
  vi.mocked(openBundle).mockResolvedValue({ ...bundle, url, manifest: { ...manifest, libraries, memory } });
  const { variant, problem } = await detect({ bundleUrl });
  expect(problem).toBeUndefined();
  expect(variant).toMatchObject({ file: "circles.wasm", device: "wasm", reason: "no WebGPU in this browser" });
});

test("a bundle that is not there is a problem", async () => {
  vi.mocked(openBundle).mockRejectedValue(new UserError(bundleUrl, "HTTP 404", "a bundle", "build one", "bad-bundle"));
  const { adapter: gpu, bundle, problem } = await detect({ bundleUrl });
  expect([gpu?.description, bundle, problem?.code]).toEqual(["acme one", undefined, "bad-bundle"]);
  vi.stubGlobal("navigator", {});
  expect((await detect({ bundleUrl })).problem?.code).toBe("bad-bundle"); // not that there is no GPU
});

test("a processor that stands in for a GPU is told", async () => {
  Object.assign(adapter as object, { info: { vendor: "google", architecture: "swiftshader" } });
  expect((await detect()).adapter?.isSoftware).toBe(true);
});

test("an abort rejects, and so does a misspelt option", async () => {
  await expect(detect({ bundleUrl, signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
  const left = detect({ bundleUrl, signal: AbortSignal.abort("the visitor has left") });
  await expect(left).rejects.toMatchObject({
    name: "AbortError",
    message: "the call was aborted: the visitor has left",
  });
  await expect(detect({ bundelUrl: "x" } as never)).rejects.toThrow("'bundelUrl'");
});

import { beforeEach, expect, test, vi } from "vitest";
import { chooseDevice } from "../../src/engine/choose_device";
import { isSoftware, openDevice } from "../../src/engine/device";
import { UserError } from "../../src/engine/errors";
import type { Manifest } from "../../src/engine/manifest";
import { MEMORY, makeLibrary, makeManifest } from "./sample_bundle";

vi.mock("../../src/engine/device", async (importOriginal) => ({
  ...(await importOriginal<typeof import("../../src/engine/device")>()),
  openDevice: vi.fn(),
}));

const onGpu = makeLibrary();
const onProcessor = { ...onGpu, file: "circles.wasm", device: "wasm", instruction_set: "wasm-simd128" };
const both: Manifest = makeManifest(undefined, {
  libraries: [onGpu, onProcessor],
  memory: { [onGpu.file]: MEMORY, [onProcessor.file]: MEMORY },
});
const gpuAlone: Manifest = makeManifest();

const info = (description: string, isFallbackAdapter = false) =>
  ({ vendor: "", architecture: "", device: "", description, isFallbackAdapter }) as GPUAdapterInfo;
const gpuOf = (adapter: GPUAdapterInfo | null) =>
  ({ requestAdapter: async () => (adapter === null ? null : { info: adapter }) }) as unknown as GPU;
const REAL = gpuOf(info("acme 9000"));
const SOFTWARE = gpuOf(info("SwiftShader Device (LLVM 10.0.0)"));

beforeEach(() => {
  vi.mocked(openDevice).mockReset();
  vi.mocked(openDevice).mockResolvedValue({ library: onGpu, description: "acme", maxBufferBytes: 2 ** 30 });
});

test("a real GPU draws, and the reason names its dtype", async () => {
  const { runsOn, opened, reason } = await chooseDevice(both, "auto", REAL);
  expect([runsOn, opened.library, reason]).toEqual(["gpu", onGpu, `a GPU that computes in ${onGpu.dtype}`]);
});

test.each([
  ["no WebGPU", undefined, "no-webgpu", "no WebGPU in this browser"],
  ["no adapter", gpuOf(null), "no-adapter", "no GPU that the browser may use"],
  ["a software adapter", SOFTWARE, "imitated", "no GPU: the browser imitates one, slowly"],
  ["a fallback adapter", gpuOf(info("", true)), "imitated", "no GPU: the browser imitates one, slowly"],
])("with %s the processor draws and says why", async (_, gpu, reasonCode, reason) => {
  const chosen = await chooseDevice(both, "auto", gpu);
  expect(chosen).toMatchObject({ runsOn: "cpu", reasonCode, reason });
  expect(chosen.opened.library).toBe(onProcessor);
  expect(openDevice).not.toHaveBeenCalled();
});

test("a GPU that lacks something leaves the drawing to the processor, and the reason names it", async () => {
  vi.mocked(openDevice).mockRejectedValue(new UserError("WebGPU feature shader-f16", "none", "it", "another GPU"));
  const { runsOn, reasonCode, reason } = await chooseDevice(both, "auto", REAL);
  expect([runsOn, reasonCode, reason]).toEqual(["cpu", "gpu-lacks", "WebGPU feature shader-f16: none"]);
});

test("without a library for processors a software adapter draws", async () => {
  expect((await chooseDevice(gpuAlone, "auto", SOFTWARE)).runsOn).toBe("gpu");
});

test("a choice is not overruled", async () => {
  expect((await chooseDevice(both, "gpu", SOFTWARE)).runsOn).toBe("gpu");
  expect((await chooseDevice(both, "cpu", REAL)).runsOn).toBe("cpu");
  await expect(chooseDevice(gpuAlone, "cpu", REAL)).rejects.toThrow("bundle: got no library for processors");
});

test("an unknown choice is refused", async () => {
  await expect(chooseDevice(both, "npu" as never, REAL)).rejects.toThrow("device: got 'npu'");
});

test("a model that is too large for the processor, without a GPU, is told how much memory it wants", async () => {
  const large = { ...MEMORY.resident, peak_bytes: 3.5e9 };
  const memory = { ...both.memory, [onProcessor.file]: { resident: large, reduced: large } };
  await expect(chooseDevice({ ...both, memory }, "auto", undefined)).rejects.toThrow(
    "WebAssembly's memory: got 1.9 GB, wanted 3.5 GB for the model",
  );
});

test.each(["llvmpipe (LLVM 15.0.6, 256 bits)", "Microsoft Basic Render Driver"])("%s is a software adapter", (name) => {
  expect(isSoftware(info(name))).toBe(true);
});

import { describe, expect, test, vi } from "vitest";
import { countBuffers, lacksOf, lostDevice, openDevice, watchPipelines } from "../../src/engine/device";
import { MemoryFullError } from "../../src/engine/memory";
import { MEMORY, makeLibrary } from "./sample_bundle";

const float32 = makeLibrary({ file: "f32.wasm", required_limits: { maxBufferSize: 1024 } });
const float16 = makeLibrary({ file: "f16.wasm", dtype: "float16", required_features: ["shader-f16"] });

interface Offer {
  features?: string[];
  limits?: Record<string, number>;
}

/** A browser whose adapter offers this. */
function fakeGpu({ features = [], limits = { maxBufferSize: 4096 } }: Offer = {}) {
  const requestDevice = vi.fn(async (descriptor: GPUDeviceDescriptor) => ({ descriptor }));
  const info = { vendor: "acme", architecture: "rocket", device: "", description: "" };
  const adapter = { features: new Set(features), limits, info, requestDevice };
  return { gpu: { requestAdapter: async () => adapter } as unknown as GPU, requestDevice };
}

test("a browser without WebGPU is told what to use", async () => {
  await expect(openDevice([float32], undefined)).rejects.toThrow(/^WebGPU: got a browser without it, wanted .*; use a/);
});

test("a page over plain http is told to use https", async () => {
  vi.stubGlobal("isSecureContext", false);
  await expect(openDevice([float32], undefined)).rejects.toThrow("open the page over https");
  vi.unstubAllGlobals();
});

test("a machine without adapter is told where to look", async () => {
  const gpu = { requestAdapter: async () => null } as unknown as GPU;
  await expect(openDevice([float32], gpu)).rejects.toThrow(/no adapter.*hardware acceleration/);
});

test("a bundle without a webgpu library is refused", async () => {
  const { gpu } = fakeGpu();
  await expect(openDevice([makeLibrary({ device: "llvm" })], gpu)).rejects.toThrow(
    "bundle: got libraries for llvm, wanted one for webgpu; build with --target webgpu",
  );
});

describe("the library", () => {
  test("is float16 where the adapter has shader-f16, whatever the order", async () => {
    const { gpu } = fakeGpu({ features: ["shader-f16"] });
    expect((await openDevice([float32, float16], gpu)).library).toBe(float16);
  });

  test("is float32 where it has not", async () => {
    expect((await openDevice([float16, float32], fakeGpu().gpu)).library).toBe(float32);
  });
});

test("the device is asked for exactly what the library needs", async () => {
  const { gpu, requestDevice } = fakeGpu({ features: ["shader-f16", "subgroups"] });
  await openDevice([float16], gpu);
  const [descriptor] = requestDevice.mock.calls[0];
  expect(descriptor.requiredFeatures).toEqual(["shader-f16"]);
  expect(descriptor.requiredLimits).toEqual({ maxBufferSize: 1024 });
});

test("a limit that is too low is named with its value and the need", async () => {
  const { gpu } = fakeGpu({ limits: { maxBufferSize: 512 } });
  await expect(openDevice([float32], gpu)).rejects.toThrow(
    "WebGPU limit maxBufferSize: got 512, wanted 1024 or more; this GPU (acme rocket) cannot run the bundle",
  );
});

test("a missing feature and a low limit are both named", async () => {
  const { gpu } = fakeGpu({ limits: { maxBufferSize: 1 } });
  await expect(openDevice([float16], gpu)).rejects.toThrow(
    "WebGPU feature shader-f16: got none, wanted it; WebGPU limit maxBufferSize: got 1, wanted 1024 or more;",
  );
});

test("a limit that the browser does not know is missing", () => {
  const adapter = { features: new Set<string>(), limits: {} } as unknown as GPUAdapter;
  expect(lacksOf(adapter, float32)).toEqual([
    { subject: "WebGPU limit maxBufferSize", got: "none", wanted: "1024 or more" },
  ]);
});

describe("watchPipelines", () => {
  const fakeDevice = (create: () => Promise<unknown>) =>
    ({ createComputePipelineAsync: vi.fn(create) }) as unknown as GPUDevice;
  const descriptor = (entryPoint: string) => ({ compute: { entryPoint } }) as GPUComputePipelineDescriptor;

  test("counts what was begun and what is done", async () => {
    const device = fakeDevice(async () => ({}));
    const seen: string[] = [];
    watchPipelines(device, ({ phase, done, total }) => seen.push(`${phase} ${done}/${total}`));
    await Promise.all(["a", "b"].map((name) => device.createComputePipelineAsync(descriptor(name))));
    expect(seen).toEqual(["compile 1/2", "compile 2/2"]);
  });

  test("names the kernel that does not compile", async () => {
    const device = fakeDevice(async () => Promise.reject(new Error("too many registers")));
    watchPipelines(device);
    await expect(device.createComputePipelineAsync(descriptor("conv2d_kernel"))).rejects.toThrow(
      "kernel conv2d_kernel does not compile on this GPU: too many registers",
    );
  });
});

test("a device that tvmjs destroyed ran out of memory", () => {
  const memory = { name: "resident", ...MEMORY.resident } as const;
  const error = (reason: string, message: string) => lostDevice({ reason, message } as GPUDeviceLostInfo, memory);
  expect(error("destroyed", "")).toBeInstanceOf(MemoryFullError);
  expect(error("unknown", "reset").got).toBe("lost: reset");
});

test("the bytes of a device's buffers are counted while they live, each once, and the most of them", () => {
  const device = { createBuffer: ({ size }: { size: number }) => ({ size, destroy: vi.fn() }) } as unknown as GPUDevice;
  const bytes = countBuffers(device);
  const [one, other] = [8, 16].map((size) => device.createBuffer({ size, usage: 0 }));
  expect(bytes).toEqual({ live: 24, peak: 24 });
  for (const buffer of [one, one]) buffer.destroy();
  expect(bytes).toEqual({ live: 16, peak: 24 });
  other.destroy();
  expect(bytes).toEqual({ live: 0, peak: 24 });
});

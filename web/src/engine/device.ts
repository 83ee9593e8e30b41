/** Open a WebGPU device for one of a bundle's libraries, or name what this browser or GPU lacks. */

import { UserError } from "./errors.ts";
import type { Library } from "./manifest.ts";
import { BUFFERS_PER_HEAP, type Memory, MemoryFullError } from "./memory.ts";
import type { Progress } from "./progress.ts";
import { checkSecureContext } from "./secure_context.ts";

/** A device that was opened for one library. */
export interface OpenDevice {
  /** Undefined: the processor, which needs none. */
  readonly device?: GPUDevice;
  readonly library: Library;
  /** Vendor, architecture and name, as far as the browser reveals them: "nvidia ada-lovelace". */
  readonly description: string;
  /** The largest buffer that the adapter grants. */
  readonly maxBufferBytes: number;
}

const NEED_BROWSER =
  "use a browser with WebGPU: Chrome or Edge 113, Safari 26, Firefox 141 or newer, with hardware acceleration switched on";

/**
 * Open a device with exactly the features and limits that the library needs.
 *
 * Throws UserError if there is no WebGPU or no adapter, or if a feature or limit is missing.
 */
export async function openDevice(libraries: readonly Library[], gpu: GPU | undefined): Promise<OpenDevice> {
  webgpuLibraries(libraries);
  const adapter = await requestAdapter(gpu);
  const library = chooseLibrary(adapter, libraries);
  const device = await adapter.requestDevice({
    label: `mlc-controlnet ${library.file}`,
    requiredFeatures: library.required_features as GPUFeatureName[],
    requiredLimits: { ...library.required_limits },
  });
  return { device, library, description: describe(adapter.info), maxBufferBytes: adapter.limits.maxBufferSize };
}

/**
 * Choose the first webgpu library that the adapter can run, float16 before float32.
 *
 * Throws UserError, which names what is missing, if it can run none.
 */
export function chooseLibrary(adapter: GPUAdapter, libraries: readonly Library[]): Library {
  const candidates = webgpuLibraries(libraries);
  const lacks = candidates.map((library) => lacksOf(adapter, library));
  const fitting = lacks.findIndex((lack) => !lack.length);
  if (fitting < 0) throw missing(lacks[lacks.length - 1], describe(adapter.info));
  return candidates[fitting];
}

/** The bytes of a device's buffers. */
export interface BufferBytes {
  /** Of those that live now. */
  readonly live: number;
  /** The most that lived at a time. */
  readonly peak: number;
}

/** Count the bytes of the buffers on `device` from now on. */
export function countBuffers(device: GPUDevice): BufferBytes {
  const bytes = { live: 0, peak: 0 };
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    let { size } = descriptor;
    bytes.live += size;
    bytes.peak = Math.max(bytes.peak, bytes.live);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      bytes.live -= size;
      size = 0;
      destroy();
    };
    return buffer;
  };
  return bytes;
}

/** The GPU as the browser shows it. */
export interface AdapterFacts {
  /** Vendor, architecture and name, as far as the browser reveals them: "nvidia ada-lovelace". */
  readonly description: string;
  /** Whether the processor stands in for a GPU: pictures take minutes. */
  readonly isSoftware: boolean;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  /** A guess from the largest buffer that the adapter grants: browsers do not tell the size of GPU memory. */
  readonly estimatedMemoryBytes: number;
}

/** Collect what is known of an adapter. */
export function adapterFacts({ info, features, limits }: GPUAdapter): AdapterFacts {
  const known: Record<string, number> = {};
  for (const name in limits) {
    const value: unknown = limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") known[name] = value;
  }
  return {
    description: describe(info),
    isSoftware: isSoftware(info),
    features: [...features].sort(),
    limits: known,
    estimatedMemoryBytes: BUFFERS_PER_HEAP * limits.maxBufferSize,
  };
}

/** Return whether an adapter is the processor in disguise. */
export function isSoftware(info: GPUAdapterInfo): boolean {
  return (
    info.isFallbackAdapter === true ||
    /swiftshader|llvmpipe|lavapipe|basic render/i.test(Object.values(textsOf(info)).join())
  );
}

function webgpuLibraries(libraries: readonly Library[]): Library[] {
  const candidates = libraries.filter((library) => library.device === "webgpu").sort(float16First);
  if (candidates.length) return candidates;
  const devices = libraries.map((library) => library.device).join(", ");
  throw new UserError(
    "bundle",
    `libraries for ${devices}`,
    "one for webgpu",
    "build with --target webgpu",
    "bad-bundle",
  );
}

/** One thing that an adapter does not offer. */
export interface Lack {
  /** `WebGPU feature` or `WebGPU limit`, and its name. */
  readonly subject: string;
  readonly got: string;
  readonly wanted: string;
}

/** List everything that `adapter` lacks for `library`, in the manifest's order. */
export function lacksOf(adapter: Pick<GPUAdapter, "features" | "limits">, library: Library): Lack[] {
  const limits = adapter.limits as unknown as Record<string, number | undefined>;
  const features = library.required_features
    .filter((feature) => !adapter.features.has(feature as GPUFeatureName))
    .map((feature) => ({ subject: `WebGPU feature ${feature}`, got: "none", wanted: "it" }));
  const shortfalls = Object.entries(library.required_limits)
    .filter(([name, need]) => !((limits[name] ?? 0) >= need))
    .map(([name, need]) => ({
      subject: `WebGPU limit ${name}`,
      got: String(limits[name] ?? "none"),
      wanted: `${need} or more`,
    }));
  return [...features, ...shortfalls];
}

/**
 * Count pipelines as they are compiled, label them, and name the kernel that does not compile.
 *
 * tvmjs creates every pipeline through this method of the device. Its own reports are prose, once a second.
 */
export function watchPipelines(device: GPUDevice, onProgress: (progress: Progress) => void = () => {}): void {
  const create = device.createComputePipelineAsync.bind(device);
  let total = 0;
  let done = 0;
  device.createComputePipelineAsync = async (descriptor) => {
    total++;
    const kernel = descriptor.compute.entryPoint ?? "without a name";
    try {
      const pipeline = await create({ label: kernel, ...descriptor });
      done++;
      onProgress({ phase: "compile", done, total });
      return pipeline;
    } catch (error) {
      throw new Error(`kernel ${kernel} does not compile on this GPU: ${(error as Error).message}`);
    }
  };
}

/**
 * The error for a device that is gone. `askedBytes` are those of the buffers that it was asked for and that live.
 */
export function lostDevice({ reason, message }: GPUDeviceLostInfo, memory: Memory, askedBytes = 0): UserError {
  // Before the engine is unloaded, only tvmjs destroys the device, and only if it cannot create a buffer.
  if (reason === "destroyed") return new MemoryFullError(memory, askedBytes);
  const got = `lost: ${message || "the browser gives no reason"}`;
  const remedy = "close other tabs and programs that use the GPU and try again: the model is loaded again";
  return new UserError("GPU device", got, "a device until the picture is done", remedy, "device-lost");
}

/** What an error means that no scope caught: the picture would be silently wrong. Node's WebGPU may lack the class. */
export function uncaughtError(error: GPUError, memory: Memory, askedBytes: number): Error {
  const isFull = typeof GPUOutOfMemoryError !== "undefined" && error instanceof GPUOutOfMemoryError;
  return isFull ? new MemoryFullError(memory, askedBytes) : new Error(`WebGPU: ${error.message}`);
}

/** Ask for the fastest adapter. Throws UserError if there is no WebGPU or no adapter. */
export async function requestAdapter(gpu: GPU | undefined): Promise<GPUAdapter> {
  if (gpu === undefined) {
    checkSecureContext();
    throw new UserError("WebGPU", "a browser without it", "navigator.gpu", NEED_BROWSER, "no-webgpu");
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) {
    const remedy =
      "switch on hardware acceleration in the browser's settings, update the graphics driver and restart the browser " +
      "(chrome://gpu says what it found)";
    throw new UserError("WebGPU", "no adapter", "a GPU that the browser may use", remedy, "no-adapter");
  }
  return adapter;
}

function missing(lacks: Lack[], description: string): UserError {
  const [first, ...others] = lacks;
  const also = others.map((lack) => `; ${lack.subject}: got ${lack.got}, wanted ${lack.wanted}`).join("");
  const remedy = `this GPU (${description}) cannot run the bundle: try another browser or machine, or build for smaller limits`;
  return new UserError(first.subject, first.got, first.wanted + also, remedy, "gpu-lacks");
}

function float16First(a: Library, b: Library): number {
  return Number(b.dtype === "float16") - Number(a.dtype === "float16");
}

function textsOf({ vendor, architecture, device, description }: GPUAdapterInfo) {
  return { vendor, architecture, device, description };
}

function describe(info: GPUAdapterInfo): string {
  const { vendor, architecture, device, description } = textsOf(info);
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "an unnamed GPU";
}

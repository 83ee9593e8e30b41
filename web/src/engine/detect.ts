/** What this browser and GPU can do, and which library of a bundle would run here: before anything large is fetched. */

import { chooseDevice, type DeviceChoice, type OpenGpu } from "./choose_device.ts";
import { type AdapterFacts, adapterFacts, chooseLibrary, requestAdapter } from "./device.ts";
import { abortable, UserError } from "./errors.ts";
import { checkKeys } from "./known_keys.ts";
import { type Bundle, openBundle } from "./load.ts";
import type { Manifest } from "./manifest.ts";
import { chooseMemory, type Memory, type MemoryChoice } from "./memory.ts";
import { checkCanDraw, drawingComponents } from "./model_traits.ts";
import { neededShards } from "./weights.ts";

/** The options of detect. */
export interface DetectOptions {
  /** The address of a bundle's folder. Without it, only the browser and the GPU are looked at. */
  readonly bundleUrl?: string | URL;
  /** As for createEngine. Default: auto. */
  readonly device?: DeviceChoice;
  /** As for createEngine. Default: auto. */
  readonly memory?: MemoryChoice;
  readonly signal?: AbortSignal;
}

/** A bundle as it was found. */
export interface DetectedBundle {
  readonly manifest: Manifest;
  /** sha256 of manifest.json. */
  readonly sha256: string;
  /** Bytes that must be here before the first picture: the library, the weights, tokenizer and samplers. */
  readonly bytes: number;
  /** Those of them that this machine has kept from an earlier visit. */
  readonly keptBytes: number;
}

/** What createEngine would run. */
export interface DetectedVariant {
  /** The library's file in the bundle. */
  readonly file: string;
  /** What it runs on: webgpu, or wasm for the processor. */
  readonly device: string;
  /** Why, for readers: "no WebGPU in this browser". */
  readonly reason: string;
  /** float16 or float32. */
  readonly dtype: string;
  /** The memory mode that is tried first, and the GPU memory that it needs. */
  readonly memory: Memory;
}

/** What `detect` found. */
export interface Detection {
  /** The GPU, if the browser offers one. */
  readonly adapter?: AdapterFacts;
  /** The bundle, if an address was given and has one. */
  readonly bundle?: DetectedBundle;
  /** What would run; undefined without a bundle, or if it cannot run here. */
  readonly variant?: DetectedVariant;
  /** Why nothing can run: its `code`, and what to do in `remedy`. Undefined if all is well. */
  readonly problem?: UserError;
}

/**
 * Look at the browser, the GPU and a bundle's manifest. It fetches nothing else and leaves nothing on the GPU.
 *
 * Rejects with AbortError after the signal's abort and with UserError for options that cannot be used. Everything else that is
 * wrong is the result's `problem`.
 */
export async function detect(options: DetectOptions = {}): Promise<Detection> {
  checkKeys("options", options, ["bundleUrl", "device", "memory", "signal"]);
  return abortable(options.signal, () => look(options));
}

async function look(options: DetectOptions): Promise<Detection> {
  const { bundleUrl, device = "auto", memory = "auto", signal } = options;
  const problems: UserError[] = [];
  const attempt = async <T>(action: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      problems.push(error);
      return undefined;
    }
  };
  const adapter = await attempt(() => requestAdapter(globalThis.navigator?.gpu));
  const opened = bundleUrl === undefined ? undefined : await attempt(() => openToDraw(bundleUrl, signal));
  signal?.throwIfAborted();
  const found = {
    ...(adapter === undefined ? {} : { adapter: adapterFacts(adapter) }),
  };
  if (opened === undefined) return { ...found, ...problemOf(problems.reverse()) }; // the bundle's: a processor may draw
  const { manifest, sha256 } = opened;
  const chosen = await attempt(() => chooseDevice(manifest, device, globalThis.navigator?.gpu, lookAtGpu));
  const file = chosen?.opened.library.file ?? manifest.libraries[manifest.libraries.length - 1].file;
  const bundle = { manifest, sha256, ...(await sizesOf(opened, file)) };
  if (chosen === undefined) return { ...found, bundle, ...problemOf(problems) };
  const { library, maxBufferBytes } = chosen.opened;
  const variant = {
    file,
    device: library.device,
    reason: chosen.reason,
    dtype: library.dtype,
    memory: chooseMemory(memory, manifest.memory[file], maxBufferBytes),
  };
  return { ...found, bundle, variant }; // without a GPU there is no problem if the processor draws
}

/** What opening the GPU would give, without a device. */
const lookAtGpu: OpenGpu = async (libraries, gpu) => {
  const adapter = await requestAdapter(gpu);
  const library = chooseLibrary(adapter, libraries);
  const { description } = adapterFacts(adapter);
  return { library, description, maxBufferBytes: adapter.limits.maxBufferSize };
};

async function openToDraw(bundleUrl: string | URL, signal?: AbortSignal): Promise<Bundle> {
  const bundle = await openBundle(bundleUrl, signal);
  checkCanDraw(bundle.manifest, bundle.url);
  return bundle;
}

/** Bytes of the files that drawing needs, and of those that are here. */
async function sizesOf(bundle: Bundle, library: string): Promise<{ bytes: number; keptBytes: number }> {
  const kept = await bundle.kept();
  let [bytes, keptBytes] = [0, 0];
  for (const path of filesToDraw(bundle.manifest, library)) {
    const size = bundle.manifest.files.find((file) => file.path === path)?.bytes ?? 0;
    bytes += size;
    if (kept.has(path)) keptBytes += size;
  }
  return { bytes, keptBytes };
}

/** List the files that the first picture with a library needs. */
export function filesToDraw(manifest: Manifest, library: string): string[] {
  const shards = neededShards(manifest, drawingComponents(manifest)).keys();
  return [library, ...shards, manifest.tokenizer.file, manifest.samplers.file];
}

function problemOf([problem]: readonly UserError[]): { problem?: UserError } {
  return problem === undefined ? {} : { problem };
}

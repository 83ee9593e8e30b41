/** The engine's interface, which `create_engine.ts` implements in this thread and `../worker` on the other end of a port. */

import { checkKeys } from "./known_keys.ts";
import type { Manifest } from "./manifest.ts";
import type { Memory, MemoryChoice, MemoryPlan } from "./memory.ts";
import type { GeneratedImage, Step } from "./pipeline.ts";
import type { LoadOptions } from "./progress.ts";
import type { GenerateRequest } from "./request.ts";

export interface EngineOptions extends LoadOptions {
  /** The bundle's folder on a static host; a relative address is relative to the page. */
  readonly bundleUrl: string | URL;
  /** How much of the GPU's memory the model may take; see `memory` of its manifest. Default: auto. */
  readonly memory?: MemoryChoice;
  /** Hears what the bundle is, and how large, before anything large is fetched. */
  readonly onManifest?: (manifest: Manifest) => void;
}

export interface GenerateCallbacks {
  /** Called after each denoising step. */
  readonly onStep?: (step: Step) => void;
  /** Hears what was changed in the inputs: a cut prompt, a scaled control image. */
  readonly onNotice?: (notice: string) => void;
  /** Ends the run after the present step with an AbortError; the engine stays ready. */
  readonly signal?: AbortSignal;
}

/** What is known of a loaded engine. */
export interface EngineInfo {
  readonly manifest: Manifest;
  /** sha256 of manifest.json. */
  readonly bundleSha256: string;
  /** The GPU, as far as the browser tells. */
  readonly device: string;
  /** The compute dtype of the library in use: float16 or float32. */
  readonly dtype: string;
  /** Whether all weights stay on the GPU, and how much of its memory a picture takes. */
  readonly memory: Memory;
  /** What this library would take in either mode. */
  readonly memoryPlan: MemoryPlan;
  /** For each sampler the numbers of steps that it has a table for. */
  readonly samplers: Readonly<Record<string, readonly number[]>>;
}

/** What the GPU did since the engine was loaded. */
export interface EngineStats {
  readonly dispatches: number;
  readonly peakGpuMebibytes: number;
}

export interface ControlNetEngine {
  readonly info: EngineInfo;
  /**
   * Make a picture. Calls are served one after the other.
   *
   * Rejects with UserError for bad input and a lost device, with AbortError where the signal says so.
   */
  generate(request: GenerateRequest, callbacks?: GenerateCallbacks): Promise<GeneratedImage>;
  /** What the GPU did so far. */
  stats(): Promise<EngineStats>;
  /** End a running picture and free the GPU. The engine can not be used again. */
  unload(): Promise<void>;
}

const OPTIONS: { readonly [K in keyof Required<EngineOptions>]: true } = {
  bundleUrl: true,
  memory: true,
  onManifest: true,
  onProgress: true,
  signal: true,
};
const CALLBACKS: { readonly [K in keyof Required<GenerateCallbacks>]: true } = {
  onStep: true,
  onNotice: true,
  signal: true,
};

/** Throws UserError for options of createEngine with an unknown key, or that are not an object. */
export function checkOptions(options: EngineOptions): void {
  checkKeys("options", options, Object.keys(OPTIONS));
}

/** Throws UserError for callbacks of generate with an unknown key, or that are not an object. */
export function checkCallbacks(callbacks: GenerateCallbacks): void {
  checkKeys("callbacks", callbacks, Object.keys(CALLBACKS));
}

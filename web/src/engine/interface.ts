/** The engine's interface, which `create_engine.ts` implements in this thread and `../worker` on the other end of a port. */

import type { BatchRequest } from "./batch.ts";
import type { DeviceChoice, DeviceReason } from "./choose_device.ts";
import type { Step } from "./denoising.ts";
import { checkKeys } from "./known_keys.ts";
import type { Manifest } from "./manifest.ts";
import type { Memory, MemoryChoice, MemoryPlan } from "./memory.ts";
import type { NoticeListener } from "./notices.ts";
import type { GeneratedImage } from "./pipeline.ts";
import type { LoadOptions, Progress } from "./progress.ts";
import { checkRequest, type GenerateRequest } from "./request.ts";

/** The options of createEngine. */
export interface EngineOptions extends LoadOptions {
  /** The address of the bundle's folder on a static host, absolute or relative to the page. */
  readonly bundleUrl: string | URL;
  /** What draws: gpu, cpu or auto. Default: auto, the processor only where no real GPU can run the bundle. */
  readonly device?: DeviceChoice;
  /** Whether all weights stay in GPU memory: resident, reduced or auto. Default: auto. */
  readonly memory?: MemoryChoice;
  /** Called with the bundle's manifest before anything large is fetched. */
  readonly onManifest?: (manifest: Manifest) => void;
  /**
   * Called with a sentence, and the same as a code and values, if something is not as it should be and the engine loads
   * nevertheless: no room to keep the bundle, a GPU that looks too small.
   */
  readonly onNotice?: NoticeListener;
  /**
   * Ask the browser to keep the bundle also when it runs short of space (`navigator.storage.persist`). Firefox asks the
   * visitor; other browsers decide by themselves. Default: false.
   */
  readonly persist?: boolean;
}

/** The functions that a call of generate reports to, and the signal that ends it. */
export interface GenerateCallbacks {
  /** Called after each denoising step. */
  readonly onStep?: (step: Step) => void;
  /**
   * Called with every change to the inputs, as a sentence and as a code and values: a prompt that was cut, a control image
   * that was scaled. Also with what the engine gets over by itself.
   */
  readonly onNotice?: NoticeListener;
  /** Called with the progress of a download if this picture needs weights that are not there yet, and while it waits for kernels. */
  readonly onProgress?: (progress: Progress) => void;
  /**
   * Whether each step's `decodedPreview` is wanted: what it predicts, as a whole picture. Of a bundle without a preview
   * decoder, steps have none. Default: false.
   */
  readonly decodesPreviews?: boolean;
  /** Called with the number of calls before this one, each time that it changes; with 0 when this one begins. */
  readonly onQueue?: (ahead: number) => void;
  /**
   * Ends the call with an AbortError: before its turn or during a download at once, otherwise after the current step. The
   * engine can be used again.
   */
  readonly signal?: AbortSignal;
}

/** The same for generateAll. */
export interface BatchCallbacks extends GenerateCallbacks {
  /** Called with every picture when it is finished. */
  readonly onImage?: (image: GeneratedImage) => void;
}

/** The properties of a loaded engine. */
export interface EngineInfo {
  readonly manifest: Manifest;
  /** sha256 of manifest.json. */
  readonly bundleSha256: string;
  /** The GPU's name, as the browser gives it, or the processor. */
  readonly device: string;
  /** What draws. */
  readonly runsOn: "gpu" | "cpu";
  /** Why it does, for readers: "no WebGPU in this browser". */
  readonly reason: string;
  /** The same as a code, for texts in other languages; undefined of an engine that draws elsewhere. */
  readonly reasonCode?: DeviceReason;
  /** How many threads of the processor draw: one unless the page is cross-origin isolated, 0 on a GPU. */
  readonly threads: number;
  /** The compute dtype of the library in use: float16 or float32. */
  readonly dtype: string;
  /** The mode in use, and how much GPU memory drawing needs in it. */
  readonly memory: Memory;
  /** The GPU memory that this library needs in either mode. */
  readonly memoryPlan: MemoryPlan;
  /** The names of the samplers. */
  readonly samplers: readonly string[];
}

/** Work of the GPU since the engine was loaded, and the calls that wait for it. */
export interface EngineStats {
  /** Calls that wait for their turn; one more runs if there are any. */
  readonly waiting: number;
  readonly dispatches: number;
  readonly peakGpuMebibytes: number;
  /** Bytes of the GPU's buffers now. */
  readonly gpuBytes: number;
}

/** A loaded engine. */
export interface ControlNetEngine {
  /** Another object after the engine had to change its memory mode or its dtype. */
  readonly info: EngineInfo;
  /**
   * Draw a picture. Calls run one after the other: a call that is made while another one runs waits for its turn.
   *
   * A device that is lost meanwhile is replaced, and the picture goes on after its last step. If GPU memory is full, the model
   * is loaded again in the reduced mode. A picture of NaN or of one colour that float16 arithmetic made is drawn again in
   * float32, if the bundle has such a library. `onNotice` tells all three.
   *
   * Rejects with UserError for bad input and a device that is lost twice in a minute, and with AbortError after the signal's
   * abort.
   */
  generate(request: GenerateRequest, callbacks?: GenerateCallbacks): Promise<GeneratedImage>;
  /**
   * Draw several pictures, of a list of prompts, seeds or both, one after the other. All requests are checked before the first
   * picture is drawn. After an abort or an error, the pictures that `onImage` has received are all there are.
   */
  generateAll(request: BatchRequest, callbacks?: BatchCallbacks): Promise<GeneratedImage[]>;
  /** The work of the GPU so far. */
  stats(): Promise<EngineStats>;
  /** Cancel a running call and free the GPU. The engine cannot be used afterwards; to unload it again does nothing. */
  unload(): Promise<void>;
}

const OPTIONS: { readonly [K in keyof Required<EngineOptions>]: true } = {
  bundleUrl: true,
  device: true,
  memory: true,
  onManifest: true,
  onNotice: true,
  onProgress: true,
  persist: true,
  signal: true,
};
const CALLBACKS: { readonly [K in keyof Required<GenerateCallbacks>]: true } = {
  onStep: true,
  onNotice: true,
  onProgress: true,
  decodesPreviews: true,
  onQueue: true,
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

/** Throws UserError for the arguments of generateAll with an unknown key, or that are not objects. */
export function checkBatch(request: BatchRequest, callbacks: BatchCallbacks): void {
  checkRequest(request, ["numImagesPerPrompt"]);
  checkKeys("callbacks", callbacks, [...Object.keys(CALLBACKS), "onImage"]);
}

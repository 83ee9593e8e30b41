/**
 * The engine as a library: no DOM, so it runs in a worker, in a page and in Node with a `navigator.gpu` such as Dawn's.
 *
 *     const engine = await createEngine({ bundleUrl: "./bundle/" });
 *     const image = await engine.generate({ prompt: "gold circle with navy background", controlImage: imageData });
 *     await engine.unload();
 */

export type { BatchRequest } from "./batch.ts";
export { gigabytes } from "./byte_text.ts";
export type { DeviceChoice, DeviceReason } from "./choose_device.ts";
export type { FloatArray } from "./components.ts";
export { MASK_THRESHOLD, OPTION_NAMES } from "./constants.ts";
export { createEngine } from "./create_engine.ts";
export type { Step } from "./denoising.ts";
export {
  type DetectedBundle,
  type DetectedVariant,
  type Detection,
  type DetectOptions,
  detect,
} from "./detect.ts";
export type { AdapterFacts } from "./device.ts";
export { codeOf, type ErrorCode, isAbort, UserError } from "./errors.ts";
export type {
  BatchCallbacks,
  ControlNetEngine,
  EngineInfo,
  EngineOptions,
  EngineStats,
  GenerateCallbacks,
} from "./interface.ts";
export { purgeBundle } from "./load.ts";
export type { ControlKind, Manifest } from "./manifest_schema.ts";
export type { Memory, MemoryChoice, MemoryName, MemoryPlan } from "./memory.ts";
export { type RestoredSettings, readSettings, settingsOfRecord } from "./metadata.ts";
export { inpaints } from "./model_traits.ts";
export {
  type Notice,
  type NoticeCode,
  type NoticeListener,
  type NoticeTexts,
  type NoticeValues,
  sayNotice,
} from "./notices.ts";
export type { OneOrEach, Pair } from "./option_checks.ts";
export { words as optionWords } from "./option_text.ts";
export { type KeptBundle, keepOwnBundle, keptBundle, keptBytes, type OwnFile } from "./own_bundle.ts";
export type { Image } from "./picture.ts";
export type { GeneratedImage } from "./pipeline.ts";
export { encodePng } from "./png.ts";
export { type FittedImage, fitImage } from "./prepare_image.ts";
export type { Progress } from "./progress.ts";
export type { GenerateRequest, Settings } from "./request.ts";

/**
 * The engine as a library: no DOM, so it runs in a worker, in a page and in Node with a `navigator.gpu` such as Dawn's.
 *
 *     const engine = await createEngine({ bundleUrl: "./bundle/" });
 *     const image = await engine.generate({ prompt: "gold circle with navy background", controlImage: imageData });
 *     await engine.unload();
 */

export type { Image } from "./control_image.ts";
export {
  type ControlNetEngine,
  createEngine,
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type GenerateCallbacks,
} from "./create_engine.ts";
export { isAbort, UserError } from "./errors.ts";
export { purgeBundle } from "./load.ts";
export { inpaints, type Manifest } from "./manifest.ts";
export { gigabytes, type Memory, type MemoryChoice, type MemoryName, type MemoryPlan } from "./memory.ts";
export type { GeneratedImage, GenerateRequest, Settings, Step } from "./pipeline.ts";
export { encodePng } from "./png.ts";
export type { Progress } from "./progress.ts";

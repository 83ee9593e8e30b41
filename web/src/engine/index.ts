/**
 * The engine as a library: no DOM, so it runs in a worker, in a page and in Node with a `navigator.gpu` such as Dawn's.
 *
 *     const engine = await createEngine({ bundleUrl: "./bundle/" });
 *     const image = await engine.generate({ prompt: "gold circle with navy background", controlImage: imageData });
 *     await engine.unload();
 */

export type { Image } from "./control_image";
export {
  type ControlNetEngine,
  createEngine,
  type EngineInfo,
  type EngineOptions,
  type GenerateCallbacks,
} from "./create_engine";
export type { EngineStats } from "./engine";
export { isAbort, UserError } from "./errors";
export { purgeBundle } from "./load";
export type { Manifest } from "./manifest";
export { gigabytes, type Memory, type MemoryChoice, type MemoryName, type MemoryPlan } from "./memory";
export type { GeneratedImage, GenerateRequest, Settings, Step } from "./pipeline";
export { encodePng } from "./png";
export type { Progress } from "./progress";

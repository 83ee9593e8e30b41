/**
 * The engine in a worker, with the interface of `../engine`. The page stays responsive while kernels compile and pictures
 * are drawn.
 */

import type { ControlNetEngine, EngineOptions } from "../engine/index.ts";
import { Connection, connectEngine } from "./connect.ts";
import { startWorker } from "./start_worker.ts";

// Not from "../engine/index.ts": that would put the whole runtime, which only the worker needs, into the page's script.
export { gigabytes } from "../engine/byte_text.ts";
export { IMAGE_STRENGTH, MASK_THRESHOLD, OPTION_NAMES } from "../engine/constants.ts";
export { detect } from "../engine/detect.ts";
export { codeOf, isAbort, UserError } from "../engine/errors.ts";
export type * from "../engine/index.ts";
export { purgeBundle } from "../engine/load.ts";
export { readSettings, settingsOfRecord } from "../engine/metadata.ts";
export { inpaints } from "../engine/model_traits.ts";
export { sayNotice } from "../engine/notices.ts";
export { words as optionWords } from "../engine/option_text.ts";
export { keepOwnBundle, keptBundle, keptBytes } from "../engine/own_bundle.ts";
export { encodePng } from "../engine/png.ts";
export { fitImage } from "../engine/prepare_image.ts";
export { toRecord } from "../engine/request.ts";

/**
 * Start a worker and load a bundle in it, with the options, results and errors of createEngine in `../engine`. `unload` ends
 * the worker.
 */
export async function createEngine(options: EngineOptions): Promise<ControlNetEngine> {
  const { worker, notLoaded, stop } = startWorker();
  const connection = new Connection(worker);
  worker.onerror = (event) => {
    event.preventDefault();
    // An error without a message: the script could not be fetched, or the page's policy forbids it.
    connection.close(event.message ? new Error(`the engine's worker failed: ${event.message}`) : notLoaded);
  };
  return connectEngine(connection, options, () => {
    stop();
    connection.close(new Error("the engine was unloaded"));
  });
}

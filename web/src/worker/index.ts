/**
 * The engine in a worker of its own, with the interface of `../engine`: the page stays responsive while kernels compile and
 * pictures are made.
 */

import { UserError } from "../engine/errors.ts";
import type { ControlNetEngine, EngineOptions } from "../engine/index.ts";
import { Connection, connectEngine } from "./connect.ts";

// Not from "../engine/index.ts" itself: the page would carry the whole runtime, which only the worker needs.
export { MASK_THRESHOLD } from "../engine/constants.ts";
export { isAbort, UserError } from "../engine/errors.ts";
export type * from "../engine/index.ts";
export { purgeBundle } from "../engine/load.ts";
export { inpaints } from "../engine/manifest.ts";
export { gigabytes } from "../engine/memory.ts";
export { encodePng } from "../engine/png.ts";
export { OPTION_NAMES } from "../engine/request.ts";

/** Start a worker and load a bundle in it; see createEngine of `../engine`. `unload` ends the worker. */
export async function createEngine(options: EngineOptions): Promise<ControlNetEngine> {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "mlc-controlnet" });
  const connection = new Connection(worker);
  worker.onerror = (event) => {
    event.preventDefault();
    connection.close(event.message ? new Error(`the engine's worker failed: ${event.message}`) : notLoaded());
  };
  return connectEngine(connection, options, () => {
    worker.terminate();
    connection.close(new Error("the engine was unloaded"));
  });
}

/** A worker whose script cannot be fetched, or that a page's policy forbids, fails without a word. */
function notLoaded(): UserError {
  const remedy = "check the connection and try again; on a site of your own, its policy must allow worker-src 'self'";
  return new UserError("the engine's script", "no answer", "a script that runs in a worker", remedy);
}

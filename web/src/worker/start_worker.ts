/** Start the engine's worker, also if its script comes from another origin than the page. */

import { UserError } from "../engine/errors.ts";
import script from "./worker.ts?worker&url"; // Vite builds the worker and gives its address

/** A started worker. */
export interface StartedWorker {
  readonly worker: Worker;
  /** The error to report if the worker's script did not run. Browsers do not say why. */
  readonly notLoaded: UserError;
  /** End the worker. */
  stop(): void;
}

/**
 * Start the worker.
 *
 * A browser starts a worker only from a script of the page's own origin. For a script from another origin, this starts a
 * worker from a blob that imports the script; the other host must allow that by CORS.
 *
 * Throws UserError if the page's policy forbids the worker.
 */
export function startWorker(address = new URL(script, import.meta.url)): StartedWorker {
  const isForeign = address.origin !== globalThis.origin;
  const notLoaded = explain(address, isForeign);
  const url = isForeign ? blobThatImports(address) : address.href;
  try {
    const worker = new Worker(url, { type: "module", name: "mlc-controlnet" });
    const stop = () => {
      worker.terminate();
      if (isForeign) URL.revokeObjectURL(url);
    };
    return { worker, notLoaded, stop };
  } catch {
    throw notLoaded; // a SecurityError
  }
}

function blobThatImports(address: URL): string {
  const source = `import ${JSON.stringify(address.href)};`;
  return URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
}

function explain({ href }: URL, isForeign: boolean): UserError {
  let remedy = "check the connection and try again; a Content-Security-Policy must allow worker-src 'self'";
  if (/\/\.vite\/deps/.test(href)) {
    remedy = "add optimizeDeps: { exclude: ['mlc-controlnet'] } to vite.config and start the server again";
  } else if (isForeign) {
    remedy =
      "serve the engine's files from the page's own origin, or let their host send Access-Control-Allow-Origin and the " +
      "page's Content-Security-Policy allow worker-src blob:";
  }
  return new UserError(
    "the engine's script",
    `no answer from ${href}`,
    "a script that runs in a worker",
    remedy,
    "no-worker",
  );
}

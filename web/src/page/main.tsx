/** Start the page. */

import { render } from "preact";
import type { MemoryChoice } from "../worker";
import { App } from "./app";
import { listenForFiles } from "./state/files";
import { Run } from "./state/run";
import { Studio } from "./state/studio";
import { listenForUndo } from "./state/undo_keys";

const studio = new Studio();
const run = new Run(studio, "./bundle/");
readAddress();
listenForFiles(studio);
listenForUndo(studio);
render(<App studio={studio} run={run} />, document.getElementById("app") as HTMLElement);
document.getElementById("not-started")?.remove();
if (import.meta.env.PROD) void keepForOfflineUse(); // the development server has no such file
void run.load();

/** Apply `?memory=reduced` or `?memory=resident` of the page's address to the first load. */
function readAddress(): void {
  const choice = new URLSearchParams(location.search).get("memory");
  if (["auto", "resident", "reduced"].includes(String(choice))) studio.memory.value = choice as MemoryChoice;
}

/** Register the service worker, if the browser offers one here. Without it the page works, but only with a network. */
async function keepForOfflineUse(): Promise<void> {
  try {
    await navigator.serviceWorker?.register("./offline.js");
  } catch (error) {
    console.warn(error); // in a sandboxed frame even the request throws
  }
}

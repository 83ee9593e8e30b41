/** Start the page. */

import { render } from "preact";
import type { DeviceChoice, MemoryChoice } from "../worker";
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

/** Apply `?memory=reduced` or `?memory=resident` of the page's address to the first load, and `?device=cpu` or `?device=gpu`. */
function readAddress(): void {
  const asked = new URLSearchParams(location.search);
  const memory = asked.get("memory");
  if (["auto", "resident", "reduced"].includes(String(memory))) studio.memory.value = memory as MemoryChoice;
  const device = asked.get("device");
  if (["auto", "gpu", "cpu"].includes(String(device))) studio.device = device as DeviceChoice;
}

/** Register the service worker, if the browser offers one here. Without it the page works, but only with a network. */
async function keepForOfflineUse(): Promise<void> {
  try {
    await navigator.serviceWorker?.register("./offline.js");
  } catch (error) {
    console.warn(error); // in a sandboxed frame even the request throws
  }
}

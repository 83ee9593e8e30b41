/** Start the page. */

import { render } from "preact";
import type { DeviceChoice, MemoryChoice } from "../worker";
import { App } from "./app";
import { listenForFiles } from "./state/files";
import { Gallery } from "./state/gallery";
import { readLink } from "./state/link";
import { listenForLinks } from "./state/links";
import { Models } from "./state/models";
import { Run } from "./state/run";
import { Studio } from "./state/studio";
import { listenForUndo } from "./state/undo_keys";
import { keepForOfflineUse } from "./state/update";
import { rememberSettings } from "./state/visits";

const studio = new Studio();
const gallery = new Gallery();
studio.link = readLink(location.hash);
const models = new Models(studio.link?.model);
const run = new Run(studio, models, gallery);
readAddress();
listenForFiles(studio);
listenForUndo(studio);
listenForLinks(studio, models);
rememberSettings(studio, models);
setTimeout(start); // a task of its own: the script and the first drawing of the page would be a long one together

function start(): void {
  const app = document.getElementById("app") as HTMLElement;
  render(<App studio={studio} run={run} gallery={gallery} models={models} />, app);
  document.getElementById("not-started")?.remove();
  if (import.meta.env.PROD) void keepForOfflineUse(); // the development server has no such file
  void gallery.open();
  void models.open().then(() => run.load());
}

/** Apply `?memory=reduced` or `?memory=resident` of the page's address to the first load, and `?device=cpu` or `?device=gpu`. */
function readAddress(): void {
  const asked = new URLSearchParams(location.search);
  const memory = asked.get("memory");
  if (["auto", "resident", "reduced"].includes(String(memory))) studio.memory.value = memory as MemoryChoice;
  const device = asked.get("device");
  if (["auto", "gpu", "cpu"].includes(String(device))) studio.device = device as DeviceChoice;
}

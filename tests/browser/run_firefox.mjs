/**
 * Open the page in Firefox, press Generate, then draw with the engine alone; print the facts as JSON.
 *
 *   echo '{"site": ..., "engineSite": ..., "bundle": ..., "request": {}, "isolated": true}' |
 *     node --experimental-websocket run_firefox.mjs
 */

import { json } from "node:stream/consumers";
import { launchFirefox } from "../../web/browser/firefox.mjs";
import { serveSite } from "../../web/browser/serve_site.mjs";
import { drawWith } from "./draw_with.mjs";

/**
 * Several tries, because a Firefox that is driven from outside can stand still where a worker makes a worker: its debugger is
 * told of the new one, and Firefox wakes only one of the two that wait for that (WorkerPrivate::WaitForIsDebuggerRegistered
 * and the new worker's own loop, on one condition variable). Without a debugger, nobody waits.
 */
const TRIES = 4;
/** Of one try, which takes some five seconds. */
const PATIENCE_MS = 60_000;

const { site, engineSite, bundle, request, isolated } = /** @type {any} */ (await json(process.stdin));
let facts;
for (let left = TRIES; left > 0 && facts === undefined; left--) facts = await drawInFirefox();
if (facts === undefined) throw new Error(`Firefox stood still, ${TRIES} times for ${PATIENCE_MS / 1000} s`);
console.log(JSON.stringify(facts));

/** Draw with a Firefox and a profile of its own. Resolves to undefined if it stands still. */
async function drawInFirefox() {
  const host = await serveSite({ site, bundle, isolated });
  const browser = await launchFirefox();
  const draw = async () => {
    await browser.goto(host.url);
    const ready = await browser.call(waitForStatus, ["Ready", "Stopped", "The model is not loaded"]);
    await browser.call(() => /** @type {HTMLButtonElement} */ (document.querySelector("#generate")).click());
    const end = await browser.call(waitForStatus, ["Done", "Stopped"]);
    const about = await browser.call(() => document.querySelector("#about")?.textContent);
    host.site = engineSite;
    await browser.goto(host.url);
    const drawn = await browser.call(drawWith, { device: "auto", request });
    return { version: browser.version, ready, end, about, drawn };
  };
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, PATIENCE_MS);
  });
  try {
    return await Promise.race([draw(), late]);
  } finally {
    clearTimeout(timer);
    browser.close();
    host.close();
  }
}

/** In the page. @param {string[]} beginnings */
async function waitForStatus(beginnings) {
  for (;;) {
    const text = document.querySelector("[role=status]")?.textContent ?? "";
    if (beginnings.some((beginning) => text.startsWith(beginning))) return text;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

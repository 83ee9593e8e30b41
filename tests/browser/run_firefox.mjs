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

const { site, engineSite, bundle, request, isolated } = /** @type {any} */ (await json(process.stdin));
const host = await serveSite({ site, bundle, isolated });
const browser = await launchFirefox();
try {
  await browser.goto(host.url);
  const ready = await browser.call(waitForStatus, ["Ready", "Stopped"]);
  await browser.call(() => /** @type {HTMLButtonElement} */ (document.querySelector("#generate")).click());
  const end = await browser.call(waitForStatus, ["Done", "Stopped"]);
  const about = await browser.call(() => document.querySelector("#about")?.textContent);
  host.site = engineSite;
  await browser.goto(host.url);
  const drawn = await browser.call(drawWith, { device: "auto", request });
  console.log(JSON.stringify({ version: browser.version, ready, end, about, drawn }));
} finally {
  browser.close();
  host.close();
}

/** In the page. @param {string[]} beginnings */
async function waitForStatus(beginnings) {
  for (;;) {
    const text = document.querySelector("[role=status]")?.textContent ?? "";
    if (beginnings.some((beginning) => text.startsWith(beginning))) return text;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * Play one scenario in a real Chromium and print its facts as JSON.
 *
 *   echo '{"scenario": "drawARing", "site": ..., "bundle": ..., "folder": ..., "webgpu": "software", "flags": [], "options": {}}' |
 *     node run_scenario.mjs
 */

import { join } from "node:path";
import { json } from "node:stream/consumers";
import { launchChromium } from "../../web/browser/chromium.mjs";
import { serveSite } from "../../web/browser/serve_site.mjs";
import * as scenarios from "./scenarios.mjs";
import { Visitor } from "./visitor.mjs";

const { scenario, site, bundle, folder, webgpu, flags, options } = /** @type {any} */ (await json(process.stdin));
const host = await serveSite({ site, bundle, isolated: options.isolated });
const browser = await launchChromium({ webgpu, flags });
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 1100 } });
  const visitor = new Visitor(page, host, folder);
  // biome-ignore lint/performance/noDynamicNamespaceImportAccess: nothing is bundled here
  const play = scenarios[/** @type {keyof typeof scenarios} */ (scenario)];
  try {
    const facts = await play({ visitor, browser, host, options });
    console.log(JSON.stringify({ statuses: visitor.statuses, complaints: visitor.complaints, ...facts }));
  } finally {
    await page.screenshot({ path: join(folder, `${scenario}.png`), fullPage: true }).catch(() => {});
  }
} finally {
  await browser.close();
  host.close();
}

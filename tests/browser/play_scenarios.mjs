/**
 * Play scenarios in a real Chromium, one after another: a line of JSON comes in for each, and one with its facts or with
 * its error goes out.
 *
 *   echo '{"scenario": "drawARing", "site": ..., "bundle": ..., "folder": ..., "webgpu": "software", "flags": [], "options": {}}' |
 *     node play_scenarios.mjs
 *
 * A Chromium without flags stays for the next scenario, which opens a profile of its own in it. It goes with a failure.
 */

import { join } from "node:path";
import { createInterface } from "node:readline";
import { launchChromium } from "../../web/browser/chromium.mjs";
import { serveSite } from "../../web/browser/serve_site.mjs";
import * as scenarios from "./scenarios.mjs";
import { Visitor } from "./visitor.mjs";

/** @type {import("playwright-core").Browser | undefined} */
let kept;

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await playOne(JSON.parse(line)).catch((error) => ({ error: String(error.stack) }));
  console.log(JSON.stringify(answer));
}
await kept?.close();

/** @param {any} call */
async function playOne({ scenario, site, bundle, folder, webgpu, flags, options }) {
  const host = await serveSite({ site, bundle, isolated: options.isolated });
  const isPlain = webgpu === "software" && flags.length === 0;
  const browser = isPlain && kept?.isConnected() ? kept : await launchChromium({ webgpu, flags });
  if (isPlain) kept = undefined;
  try {
    const facts = await playIn(browser, host, scenario, folder, options);
    if (isPlain) {
      await Promise.all(browser.contexts().map((context) => context.close()));
      kept = browser;
    }
    return { facts };
  } finally {
    if (browser !== kept) await browser.close();
    host.close();
  }
}

/**
 * @param {import("playwright-core").Browser} browser
 * @param {Awaited<ReturnType<typeof serveSite>>} host
 * @param {string} scenario
 * @param {string} folder
 * @param {any} options
 */
async function playIn(browser, host, scenario, folder, options) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 1100 } });
  const visitor = new Visitor(page, host, folder);
  // biome-ignore lint/performance/noDynamicNamespaceImportAccess: nothing is bundled here
  const play = scenarios[/** @type {keyof typeof scenarios} */ (scenario)];
  try {
    const facts = await play({ visitor, browser, host, options });
    return { statuses: visitor.statuses, complaints: visitor.complaints, ...facts };
  } finally {
    await page.screenshot({ path: join(folder, `${scenario}.png`), fullPage: true }).catch(() => {});
  }
}

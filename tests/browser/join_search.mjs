/**
 * Open the page of `tune --runner browser` in Chromium with the software adapter, do what stdin says, and print facts.
 *
 *   node join_search.mjs ADDRESS
 *
 * A line of stdin each: `open` another tab, `close` the oldest, `lose` the device of the oldest, `stop` the oldest, or
 * `tell`, which prints what every tab says, as a line of JSON.
 */

import { createInterface } from "node:readline";
import { launchChromium } from "../../web/browser/chromium.mjs";

const address = process.argv[2];
const browser = await launchChromium();
const context = await browser.newContext();
/** @type {string[]} */
const complaints = [];
/** @type {import("playwright-core").Page[]} */
const pages = [];

/** Keep the device in reach of `lose`: only a process that crashes takes it otherwise. */
function keepDevice() {
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    const device = await request.call(this, descriptor);
    Reflect.set(globalThis, "device", device);
    return device;
  };
}

async function open() {
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("request", (request) => request.url().startsWith(address) || complaints.push(`asked for ${request.url()}`));
  await page.addInitScript(keepDevice);
  await page.goto(address);
  pages.push(page);
}

const tell = async () => ({
  pages: await Promise.all(
    pages.map(async (page) => ({
      status: await page.textContent("#status"),
      count: Number(await page.textContent("#count")),
      button: await page.textContent("#stop"),
    })),
  ),
  complaints,
});

/** @type {Record<string, () => Promise<unknown>>} */
const actions = {
  open,
  close: async () => pages.shift()?.close(),
  lose: () => pages[0].evaluate(() => Reflect.get(globalThis, "device").destroy()),
  stop: () => pages[0].click("#stop"),
  tell,
};
for await (const line of createInterface(process.stdin)) console.log(JSON.stringify((await actions[line]()) ?? null));
await browser.close();

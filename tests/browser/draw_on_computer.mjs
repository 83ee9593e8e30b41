/**
 * Open the page of a service in a real Chromium, switch to the computer, draw, cancel once, save; print the facts as JSON.
 *
 *   node draw_on_computer.mjs ADDRESS FOLDER
 */

import { join } from "node:path";
import { launchChromium } from "../../web/browser/chromium.mjs";
import { Visitor } from "./visitor.mjs";

const [url, folder] = process.argv.slice(2);
const browser = await launchChromium({ webgpu: "none", flags: [] });
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 1100 }, acceptDownloads: true });
  const visitor = new Visitor(page, { url, requests: [] }, folder);
  const policy = await page.request.get(url).then((answer) => answer.text());
  await visitor.open();
  await page.getByText("On this computer").click();
  await visitor.waitFor("Ready");
  await page.locator("#prompt").fill("red");
  await visitor.set("Seed", "7");
  const asked = page.waitForRequest((request) => request.url().endsWith("/v1/generate"));
  await page.locator("#generate").click();
  await visitor.waitFor("Done", "Stopped");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
  await download.saveAs(join(folder, "saved.png"));
  await page.screenshot({ path: join(folder, "computer.png"), fullPage: true });
  const described = await page.locator("#about").textContent();
  await visitor.set("Steps", "100");
  await visitor.set("Pictures", "500");
  const begun = page.waitForRequest((request) => request.url().endsWith("/v1/generate"));
  await page.locator("#generate").click();
  await begun;
  await page.locator("#cancel").click();
  const cancelled = await visitor.waitFor("Cancelled", "Done", "Stopped");
  const [controlImage] = JSON.parse((await asked).postData() ?? "{}").control_image;
  const csp = policy.match(/connect-src [^;"]*/)?.[0];
  console.log(
    JSON.stringify({
      statuses: visitor.statuses,
      complaints: visitor.complaints,
      csp,
      described,
      cancelled,
      controlImage,
    }),
  );
} finally {
  await browser.close();
}

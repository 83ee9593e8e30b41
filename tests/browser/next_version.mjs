/** Another version of the page, published while a visitor has this one open. */

import { cpSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Serve another version of the page from `folder`; returns the entry script that it no longer has. @param {{ site: string }} host @param {string} folder @param {string} version */
export function publishNext(host, folder, version) {
  cpSync(host.site, folder, { recursive: true });
  const page = readFileSync(join(folder, "index.html"), "utf8");
  const [entry] = /** @type {string[]} */ (page.match(/assets\/index-[\w-]+\.js/));
  const next = `assets/index-${version}.js`;
  renameSync(join(folder, entry), join(folder, next));
  const description = /(?<=name="description"\s+content=")[^"]*/;
  writeFileSync(join(folder, "index.html"), page.replaceAll(entry, next).replace(description, `The ${version} page`));
  const worker = readFileSync(join(folder, "offline.js"), "utf8").replaceAll(entry, next);
  writeFileSync(join(folder, "offline.js"), worker.replace(/(?<=VERSION = ")[^"]*/, version));
  host.site = folder;
  return entry;
}

/** Wait until the service worker of a version has taken over. @param {import("playwright-core").Page} page @param {string} version */
export async function waitForVersion(page, version) {
  await page.evaluate(async (version) => {
    const registration = await navigator.serviceWorker.ready;
    for (let patience = 300; patience > 0; patience--) {
      const { installing, waiting, active } = registration;
      const isKept = (await caches.keys()).some((name) => name.endsWith(` ${version}`));
      if (isKept && !installing && !waiting && active?.state === "activated") return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }, version);
}

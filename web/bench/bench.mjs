/**
 * Time the built page in Chromium, as a visitor sees it.
 *
 *   npm run bench -- --bundle ../dist/circles-webgpu
 *
 *   --site    the built page                      (../dist/site)
 *   --bundle  the bundle                          (../dist/circles-webgpu)
 *   --steps   denoising steps                     (20)
 *   --guidance  guidance scale                    (the bundle's default)
 *   --runs    pictures; prints the fastest        (1)
 *   --visits  second visits; prints the median    (5)
 *   --gpu     use the machine's GPU instead of the software adapter
 *   --cpu     use the processor, by the bundle's library for it
 *   --isolated  make the page cross-origin isolated: the processor then draws with threads
 */

import { existsSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { launchChromium } from "../browser/chromium.mjs";
import { serveSite } from "../browser/serve_site.mjs";

const PATIENCE_MS = 3_600_000;
const repository = resolve(import.meta.dirname, "..", "..");

const { values: options } = parseArgs({
  options: {
    site: { type: "string", default: join(repository, "dist", "site") },
    bundle: { type: "string", default: join(repository, "dist", "circles-webgpu") },
    steps: { type: "string", default: "20" },
    guidance: { type: "string" },
    runs: { type: "string", default: "1" },
    visits: { type: "string", default: "5" },
    gpu: { type: "boolean", default: false },
    cpu: { type: "boolean", default: false },
    isolated: { type: "boolean", default: false },
  },
});

/** @param {string} folder @param {string} file @param {string} remedy */
function wantFile(folder, file, remedy) {
  if (existsSync(join(folder, file))) return;
  console.error(`error: ${folder}: got no ${file}, wanted it there; ${remedy}`);
  process.exit(2);
}

/**
 * Return the duration and detail of the page's last measure of this name.
 *
 * @param {import("playwright-core").Page} page @param {string} name
 */
async function lastMeasure(page, name) {
  await page.waitForFunction((wanted) => performance.getEntriesByName(wanted).length > 0, name, {
    timeout: PATIENCE_MS,
  });
  return page.evaluate((wanted) => {
    const entry = /** @type {PerformanceMeasure} */ (performance.getEntriesByName(wanted).at(-1));
    performance.clearMeasures(wanted);
    return { seconds: entry.duration / 1000, ...entry.detail };
  }, name);
}

/**
 * Visit the page again, press Generate as soon as it is ready, and return the seconds from the begin of loading until it is
 * ready and until the first step is done.
 *
 * @param {import("playwright-core").Page} page
 */
async function visitAgain(page) {
  await page.reload();
  const { seconds } = await lastMeasure(page, "mlc-controlnet load");
  const firstStep = page.evaluate(
    () =>
      new Promise((resolve) => {
        const [{ startTime }] = performance.getEntriesByName("load begins");
        const status = /** @type {Element} */ (document.querySelector("[role=status]"));
        const observer = new MutationObserver(() => {
          if (!/^Step 1 /.test(status.textContent ?? "")) return;
          observer.disconnect();
          resolve((performance.now() - startTime) / 1000);
        });
        observer.observe(status, { childList: true, characterData: true, subtree: true });
      }),
  );
  await page.getByRole("button", { name: "Generate" }).click();
  const stepped = Number(await firstStep);
  await page.getByRole("button", { name: "Cancel" }).first().click();
  await page.getByRole("button", { name: "Generate" }).waitFor({ timeout: PATIENCE_MS });
  return { ready: seconds, firstStep: stepped };
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((one, other) => one - other)[values.length >> 1];
}

wantFile(options.site, "index.html", "build the page with npm run build in web/");
wantFile(options.bundle, "manifest.json", "build a bundle with python build.py --target webgpu");
const folders = { site: resolve(options.site), bundle: resolve(options.bundle) };
const host = await serveSite({ ...folders, isolated: options.isolated });
const browser = await launchChromium({ webgpu: options.gpu ? "gpu" : "software" });
try {
  const page = await (await browser.newContext()).newPage();
  /** @param {string} label @param {number} value */
  const tell = (label, value) => console.log(`${label.padEnd(34)}${value.toFixed(1).padStart(8)} s`);

  await page.goto(`${host.url}?device=${options.cpu ? "cpu" : "gpu"}`);
  const cold = await lastMeasure(page, "mlc-controlnet load");
  console.log(
    `${cold.device}, ${cold.dtype}; Chromium ${browser.version()}; ${cpus()[0]?.model}, ${availableParallelism()} threads`,
  );
  tell("first load", cold.seconds);
  const visits = [];
  for (let visit = 0; visit < Number(options.visits); visit++) visits.push(await visitAgain(page));
  tell(`second load, median of ${visits.length}`, median(visits.map(({ ready }) => ready)));
  tell("until its first step is done", median(visits.map(({ firstStep }) => firstStep)));

  await page.getByText("Settings").click();
  await page.getByLabel("Steps").fill(options.steps);
  if (options.guidance !== undefined) await page.getByLabel("Guidance scale").fill(options.guidance);
  let best = { seconds: Number.POSITIVE_INFINITY, dispatches: 0, peakGpuMebibytes: 0 };
  let before = 0;
  for (let run = 0; run < Number(options.runs); run++) {
    await page.getByRole("button", { name: "Generate" }).click();
    const measured = await lastMeasure(page, "mlc-controlnet generate");
    const dispatches = measured.dispatches - before;
    before = measured.dispatches;
    if (measured.seconds < best.seconds) best = { ...measured, dispatches };
  }
  const guidance = await page.getByLabel("Guidance scale").inputValue();
  tell(`${options.steps} steps, guidance ${guidance}, and decoding`, best.seconds);
  console.log(`${best.dispatches} dispatches per picture, ${best.peakGpuMebibytes} MiB on the GPU at most`);
} finally {
  await browser.close();
  host.close();
}

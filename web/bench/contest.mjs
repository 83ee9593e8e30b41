/**
 * Run the contest that a folder describes, in Chromium or in Node, and write its outcome into the same folder.
 *
 *   node bench/contest.mjs --job FOLDER
 *
 *   --job   the folder with job.json and its files (mlc_controlnet/bench/operations/webgpu_contest.py writes it);
 *           outcome.json is written there
 *   --host  chromium, or node: Dawn without a browser, on any Vulkan, Metal or D3D12 driver     (chromium)
 *   --gpu   in Chromium, use the machine's GPU instead of the software adapter
 *
 *   --adapter  run no contest, but print as JSON on stdout the adapter that would be used
 *
 * Progress goes to stderr, one line per message.
 */

import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { launchChromium } from "../browser/chromium.mjs";
import { serveSite } from "../browser/serve_site.mjs";

const { values: options } = parseArgs({
  options: {
    job: { type: "string" },
    host: { type: "string", default: "chromium" },
    gpu: { type: "boolean", default: false },
    adapter: { type: "boolean", default: false },
  },
});
const web = resolve(import.meta.dirname, "..");
const module = resolve(web, "..", "dist", "bench", "contest.js");
const peer = join(web, "node_modules", "onnxruntime-web", "dist");
const PEER_MODULE = "ort.webgpu.min.mjs"; // the file of `import "onnxruntime-web/webgpu"`; its folder has the wasm

/** @typedef {import("./contest/job.ts").Outcome} Outcome */
/** @typedef {import("./contest/job.ts").Adapter} Adapter */

/** @param {string} line */
const tell = (line) => console.error(line);

/** @param {string} base @returns {Promise<(Outcome & { host: string }) | Adapter>} */
async function inChromium(base) {
  const flags = ["--disable-dawn-features=timestamp_quantization", "--enable-webgpu-developer-features"];
  const browser = await launchChromium({ webgpu: options.gpu ? "gpu" : "software", flags });
  try {
    const page = await (await browser.newContext()).newPage();
    page.on("console", (message) => message.type() === "error" && tell(message.text()));
    await page.exposeFunction("tell", tell);
    await page.goto(base);
    const found = await page.evaluate(
      async ([module, ort]) => {
        const { findAdapter, runContest } = await import(module);
        const progress = /** @type {{ tell: (line: string) => void }} */ (/** @type {unknown} */ (window)).tell;
        return ort === "" ? findAdapter() : runContest(location.href, ort, progress);
      },
      [`${base}contest.js`, options.adapter ? "" : `${base}ort/${PEER_MODULE}`],
    );
    return options.adapter ? found : { ...found, host: `Chromium ${browser.version()}` };
  } finally {
    await browser.close();
  }
}

/** @param {string} base @returns {Promise<(Outcome & { host: string }) | Adapter>} */
async function inNode(base) {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  // As in browser/chromium.mjs, workgroup memory is not zeroed. The GPU's clock counts nanoseconds, not 0.1 ms steps.
  const gpu = create([
    "enable-dawn-features=allow_unsafe_apis,disable_workgroup_init",
    "disable-dawn-features=timestamp_quantization",
  ]);
  copySharedWrites(gpu);
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
  const { findAdapter, runContest } = await import(pathToFileURL(module).href);
  if (options.adapter) return findAdapter();
  const outcome = await runContest(base, pathToFileURL(join(peer, PEER_MODULE)).href, tell);
  return { ...outcome, host: `Dawn in Node ${process.versions.node}` };
}

/**
 * Copy data from shared memory before it is written to the GPU. Dawn's Node build refuses to write from shared memory.
 * Browsers allow it, and onnxruntime-web's wasm has its heap there.
 *
 * @param {GPU} gpu
 */
function copySharedWrites(gpu) {
  const requestAdapter = gpu.requestAdapter.bind(gpu);
  gpu.requestAdapter = async (request) => {
    const adapter = await requestAdapter(request);
    if (adapter === null) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      const { queue } = device;
      const write = queue.writeBuffer.bind(queue);
      queue.writeBuffer = (buffer, offset, data, ...rest) => {
        const view = /** @type {Uint8Array} */ (data);
        write(buffer, offset, view.buffer instanceof SharedArrayBuffer ? view.slice() : data, ...rest);
      };
      Object.defineProperty(device, "queue", { value: queue }); // so that every read returns this object
      return device;
    };
    return adapter;
  };
}

const job = options.adapter ? mkdtempSync(join(tmpdir(), "contest-")) : resolve(/** @type {string} */ (options.job));
symlinkSync(module, join(job, "contest.js"));
symlinkSync(peer, join(job, "ort"));
writeFileSync(join(job, "index.html"), '<!doctype html><title>contest</title><link rel="icon" href="data:,">');
const host = await serveSite({ site: job, bundle: job });
const found = JSON.stringify(await (options.host === "node" ? inNode(host.url) : inChromium(host.url)));
if (options.adapter) {
  rmSync(job, { recursive: true });
  console.log(found);
} else {
  writeFileSync(join(job, "outcome.json.new"), found);
  renameSync(join(job, "outcome.json.new"), join(job, "outcome.json"));
}
process.exit(0); // Dawn's threads would keep the process alive

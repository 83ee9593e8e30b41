/**
 * Run the contest that a folder describes, in Chromium or in Node, and write its outcome into the same folder.
 *
 *   node bench/contest.mjs --job FOLDER
 *
 *   --job   the folder with job.json and its files (mlc_controlnet/bench/operations/web_contest.py writes it);
 *           outcome.json is written there
 *   --host  chromium, or node: Dawn without a browser, on any Vulkan, Metal or D3D12 driver     (chromium)
 *   --gpu   in Chromium, use the machine's GPU instead of the software adapter
 *
 *   --adapter  run no contest, but print as JSON on stdout the adapter that would be used
 *   --instruction-set NAME  run no contest, but print as JSON on stdout whether this Node runs code of it
 *
 * A job with `threads` is a contest on the processor: in Chromium in a worker of a cross-origin isolated page, in Node on one
 * thread.
 *
 * Progress goes to stderr, one line per message.
 */

import { mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
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
    "instruction-set": { type: "string" },
  },
});
const web = resolve(import.meta.dirname, "..");
const module = resolve(web, "..", "dist", "bench", "contest.js");
const instructionSet = options["instruction-set"];
if (instructionSet !== undefined) {
  const { hasInstructionSet } = await import(pathToFileURL(module).href);
  console.log(JSON.stringify({ host: `Node ${process.versions.node}`, runs: hasInstructionSet(instructionSet) }));
  process.exit(0);
}
const peer = join(web, "node_modules", "onnxruntime-web", "dist");
const job = options.adapter ? mkdtempSync(join(tmpdir(), "contest-")) : resolve(/** @type {string} */ (options.job));
/** @type {Pick<import("./contest/job.ts").Job, "threads">} */
const { threads } = options.adapter ? { threads: null } : JSON.parse(readFileSync(join(job, "job.json"), "utf8"));
const onProcessor = threads !== null;
// The file of `import "onnxruntime-web/wasm"` or "/webgpu"; its folder has the wasm.
const peerModule = onProcessor ? "ort.wasm.min.mjs" : "ort.webgpu.min.mjs";

/** @typedef {import("./contest/job.ts").Outcome} Outcome */
/** @typedef {import("./contest/job.ts").Adapter} Adapter */

/** @param {string} line */
const tell = (line) => console.error(line);

/** @param {string} base @returns {Promise<(Outcome & { host: string }) | Adapter>} */
async function inChromium(base) {
  const flags = ["--disable-dawn-features=timestamp_quantization", "--enable-webgpu-developer-features"];
  const browser = await launchChromium(
    onProcessor ? { webgpu: "none" } : { webgpu: options.gpu ? "gpu" : "software", flags },
  );
  try {
    const page = await (await browser.newContext()).newPage();
    page.on("console", (message) => message.type() === "error" && tell(message.text()));
    await page.exposeFunction("tell", tell);
    await page.goto(base);
    if (onProcessor) return { ...(await inWorker(page, base)), host: `Chromium ${browser.version()}` };
    const found = await page.evaluate(
      async ([module, ort]) => {
        const { findAdapter, runContest } = await import(module);
        const progress = /** @type {{ tell: (line: string) => void }} */ (/** @type {unknown} */ (window)).tell;
        return ort === "" ? findAdapter() : runContest(location.href, ort, progress);
      },
      [`${base}contest.js`, options.adapter ? "" : `${base}ort/${peerModule}`],
    );
    return options.adapter ? found : { ...found, host: `Chromium ${browser.version()}` };
  } finally {
    await browser.close();
  }
}

/**
 * Run the contest in a worker of the page.
 *
 * @param {import("playwright-core").Page} page @param {string} base @returns {Promise<Outcome>}
 */
function inWorker(page, base) {
  return page.evaluate(
    ([base, ort]) => {
      const { tell } = /** @type {{ tell: (line: string) => void }} */ (/** @type {unknown} */ (window));
      const worker = new Worker(`${base}worker.mjs`, { type: "module" });
      return new Promise((resolve, reject) => {
        worker.onerror = (event) => reject(new Error(`the worker did not start: ${event.message}`));
        worker.onmessage = ({ data: { line, outcome, error } }) => {
          if (line !== undefined) tell(line);
          else if (error !== undefined) reject(new Error(error));
          else resolve(outcome);
        };
        worker.postMessage({ base, ort });
      });
    },
    [base, `${base}ort/${peerModule}`],
  );
}

/** @param {string} base @returns {Promise<(Outcome & { host: string }) | Adapter>} */
async function inNode(base) {
  const ort = pathToFileURL(join(peer, peerModule)).href;
  if (onProcessor) {
    const { runContest } = await import(pathToFileURL(module).href);
    return { ...(await runContest(base, ort, tell)), host: `Node ${process.versions.node}` };
  }
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
  const outcome = await runContest(base, ort, tell);
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

symlinkSync(module, join(job, "contest.js"));
symlinkSync(join(web, "bench", "contest", "worker.mjs"), join(job, "worker.mjs"));
symlinkSync(peer, join(job, "ort"));
writeFileSync(join(job, "index.html"), '<!doctype html><title>contest</title><link rel="icon" href="data:,">');
const host = await serveSite({ site: job, bundle: job, isolated: onProcessor });
const found = JSON.stringify(await (options.host === "node" ? inNode(host.url) : inChromium(host.url)));
if (options.adapter) {
  rmSync(job, { recursive: true });
  console.log(found);
} else {
  writeFileSync(join(job, "outcome.json.new"), found);
  renameSync(join(job, "outcome.json.new"), join(job, "outcome.json"));
}
process.exit(0); // Dawn's threads would keep the process alive

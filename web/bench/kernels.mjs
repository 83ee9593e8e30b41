/**
 * Time every kernel of a bundle on the GPU's own clock, without a browser: Dawn in Node runs the bundle unmodified.
 *
 *   npm run bench:kernels
 *
 *   --bundle  the bundle                          (../dist/circles-webgpu)
 *   --engine  the engine                          (../dist/engine)
 *   --steps   denoising steps                     (4)
 *   --guidance  guidance scale                    (the bundle's default)
 *   --top     kernels to list, the slowest first  (40)
 *
 * Dawn finds a Vulkan, Metal or D3D12 driver as any program does. For Chromium's software driver, run:
 *   VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json LD_LIBRARY_PATH=/usr/lib/chromium npm run bench:kernels
 */

import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { create, globals } from "webgpu";
import { serveSite } from "../browser/serve_site.mjs";
import { PassClock } from "./pass_clock.mjs";

const repository = resolve(import.meta.dirname, "..", "..");
const { values: options } = parseArgs({
  options: {
    bundle: { type: "string", default: join(repository, "dist", "circles-webgpu") },
    engine: { type: "string", default: join(repository, "dist", "engine") },
    steps: { type: "string", default: "4" },
    guidance: { type: "string" },
    top: { type: "string", default: "40" },
  },
});

Object.assign(globalThis, globals);
// Get timestamps in nanoseconds instead of steps of 0.1 ms. browser/chromium.mjs explains disable_workgroup_init.
const gpu = create([
  "enable-dawn-features=allow_unsafe_apis,disable_workgroup_init",
  "disable-dawn-features=timestamp_quantization",
]); // navigator keeps a reference: Dawn crashes if its instance is garbage-collected
/** @type {PassClock | undefined} */
let clock;
const requestAdapter = gpu.requestAdapter.bind(gpu);
Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
gpu.requestAdapter = async (request) => {
  const adapter = await requestAdapter(request);
  if (adapter === null) return null;
  const requestDevice = adapter.requestDevice.bind(adapter);
  adapter.requestDevice = async (descriptor) => {
    const requiredFeatures = [...(descriptor?.requiredFeatures ?? []), /** @type {const} */ ("timestamp-query")];
    const device = await requestDevice({ ...descriptor, requiredFeatures });
    clock = new PassClock(device);
    return device;
  };
  return adapter;
};

const host = await serveSite({ site: resolve(options.engine), bundle: resolve(options.bundle) });
const { createEngine } = await import(join(resolve(options.engine), "engine.js"));
const engine = await createEngine({ bundleUrl: `${host.url}bundle/` });
const { height, width } = engine.info.manifest.model;
const controlImage = { width, height, data: new Uint8ClampedArray(4 * width * height).fill(255) };
const request = {
  prompt: "gold circle with navy background",
  controlImage,
  seed: 0,
  numInferenceSteps: Number(options.steps),
  guidanceScale: options.guidance === undefined ? undefined : Number(options.guidance),
};
await engine.generate({ ...request, numInferenceSteps: 1 }); // fills the driver's own caches
const passClock = /** @type {PassClock} */ (/** @type {unknown} */ (clock));
passClock.start();
const started = performance.now();
await engine.generate(request);
const wall = performance.now() - started;
const durations = await passClock.durations();

/** @type {Map<string, { count: number, ms: number }>} */
const kernels = new Map();
let total = 0;
for (const [i, ms] of durations.entries()) {
  const { kernel, grid } = passClock.passes[i];
  const name = `${kernel} ${grid}`;
  const sum = kernels.get(name) ?? { count: 0, ms: 0 };
  kernels.set(name, { count: sum.count + 1, ms: sum.ms + ms });
  total += ms;
}
console.log(`${engine.info.device}, ${engine.info.dtype}; ${options.steps} steps`);
console.log(
  `wall ${(wall / 1000).toFixed(2)} s, kernels ${(total / 1000).toFixed(2)} s, ${passClock.passes.length} launches`,
);
const slowest = [...kernels].sort(([, a], [, b]) => b.ms - a.ms).slice(0, Number(options.top));
console.log(" share  total ms  count  each ms  kernel, workgroups");
for (const [name, { count, ms }] of slowest) {
  const share = ((100 * ms) / total).toFixed(1).padStart(5);
  console.log(
    `${share}%${ms.toFixed(1).padStart(10)}${String(count).padStart(7)}${(ms / count).toFixed(3).padStart(9)}  ${name}`,
  );
}
process.exit(0); // Dawn's threads would keep the process alive

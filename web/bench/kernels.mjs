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
 * A Vulkan, Metal or D3D12 driver is found as by any program. For Chromium's software driver:
 *   VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json LD_LIBRARY_PATH=/usr/lib/chromium npm run bench:kernels
 */

import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { create, globals } from "webgpu";
import { serveSite } from "../browser/serve_site.mjs";

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

/** One dispatch a pass: a pass's two timestamps are a kernel's. A query set holds at most this many. */
const QUERIES = 4096;

/** Records a device's compute passes: which kernel, and from when to when on the GPU's clock. */
class PassClock {
  /** @type {{ kernel: string, grid: string }[]} */
  passes = [];
  /** @type {GPUQuerySet[]} */
  querySets = [];
  recording = false;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.device = device;
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    device.createCommandEncoder = (descriptor) => {
      const encoder = createCommandEncoder(descriptor);
      const begin = encoder.beginComputePass.bind(encoder);
      encoder.beginComputePass = () => (this.recording ? this.timed(begin) : begin());
      return encoder;
    };
  }

  /** @param {GPUCommandEncoder["beginComputePass"]} begin */
  timed(begin) {
    const index = this.passes.length;
    const first = (2 * index) % QUERIES;
    if (first === 0) this.querySets.push(this.device.createQuerySet({ type: "timestamp", count: QUERIES }));
    const querySet = /** @type {GPUQuerySet} */ (this.querySets.at(-1));
    const record = { kernel: "", grid: "" };
    this.passes.push(record);
    const timestampWrites = { querySet, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
    const pass = begin({ timestampWrites });
    const setPipeline = pass.setPipeline.bind(pass);
    pass.setPipeline = (pipeline) => {
      record.kernel = pipeline.label;
      setPipeline(pipeline);
    };
    const dispatch = pass.dispatchWorkgroups.bind(pass);
    pass.dispatchWorkgroups = (x, y, z) => {
      record.grid = `${x}x${y ?? 1}x${z ?? 1}`;
      dispatch(x, y, z);
    };
    return pass;
  }

  /** Milliseconds of each pass, in order. */
  async durations() {
    const bytes = 8 * QUERIES;
    const milliseconds = [];
    for (const querySet of this.querySets) {
      const resolved = this.device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
      });
      const staging = this.device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
      });
      const encoder = this.device.createCommandEncoder();
      encoder.resolveQuerySet(querySet, 0, QUERIES, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
      this.device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const ticks = new BigUint64Array(staging.getMappedRange());
      for (let i = 0; i < QUERIES; i += 2) milliseconds.push(Number(ticks[i + 1] - ticks[i]) / 1e6);
    }
    return milliseconds.slice(0, this.passes.length);
  }
}

Object.assign(globalThis, globals);
// Timestamps in nanoseconds instead of steps of 0.1 ms; workgroup memory as in browser/chromium.mjs.
const gpu = create([
  "enable-dawn-features=allow_unsafe_apis,disable_workgroup_init",
  "disable-dawn-features=timestamp_quantization",
]); // navigator keeps it: Dawn crashes when its instance is collected
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
  steps: Number(options.steps),
  guidanceScale: options.guidance === undefined ? undefined : Number(options.guidance),
};
await engine.generate({ ...request, steps: 1 }); // the driver's own caches
const passClock = /** @type {PassClock} */ (/** @type {unknown} */ (clock));
passClock.recording = true;
const started = performance.now();
await engine.generate(request);
const wall = performance.now() - started;
passClock.recording = false;

/** @type {Map<string, { count: number, ms: number }>} */
const kernels = new Map();
let total = 0;
for (const [i, ms] of (await passClock.durations()).entries()) {
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

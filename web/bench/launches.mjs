/**
 * Time what the host spends on a launch, with kernels that do nothing.
 *
 *   npm run bench:launches
 *
 *   --bundle  the bundle                          (../dist/circles-webgpu)
 *   --engine  the engine                          (../dist/engine)
 *   --steps   denoising steps of a run            (20)
 *   --guidance  guidance scale                    (the bundle's default)
 *   --runs    pictures; prints the median         (9)
 *
 * A kernel's body is taken away and it is launched with one workgroup, so that only the host's work is left: TVM's
 * virtual machine, its web runtime, the WebGPU implementation and its driver. Node's WebGPU is Dawn in this process; a
 * browser's page pays for a part of it only, and for sending the calls to another process.
 */

import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { create, globals } from "webgpu";
import { serveSite } from "../browser/serve_site.mjs";

const repository = resolve(import.meta.dirname, "..", "..");
const { values: options } = parseArgs({
  options: {
    bundle: { type: "string", default: join(repository, "dist", "circles-webgpu") },
    engine: { type: "string", default: join(repository, "dist", "engine") },
    steps: { type: "string", default: "20" },
    guidance: { type: "string" },
    runs: { type: "string", default: "9" },
  },
});

Object.assign(globalThis, globals);
const gpu = create([]); // navigator keeps a reference: Dawn crashes if its instance is garbage-collected
Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });

/** Host milliseconds from the begin of a command encoder to the end of its submission, and the compute passes in it. */
const spent = { milliseconds: 0, submitting: 0, passes: 0, bindGroups: 0, writes: 0, submits: 0 };

const { prototype } = globalThis.GPUComputePassEncoder;
const { dispatchWorkgroups } = prototype;
prototype.dispatchWorkgroups = function () {
  dispatchWorkgroups.call(this, 1);
};

/** Take the body of every kernel away. @param {string} wgsl */
function withoutBodies(wgsl) {
  return wgsl.replace(/(@compute[^{]*\) )\{.*/s, "$1{}");
}

/** Watch a device from below: what reaches it is counted, whatever the engine saves. @param {GPUDevice} device */
function watch(device) {
  const createShaderModule = device.createShaderModule.bind(device);
  device.createShaderModule = (descriptor) =>
    createShaderModule({ ...descriptor, code: withoutBodies(descriptor.code) });
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => {
    spent.bindGroups++;
    return createBindGroup(descriptor);
  };
  let begun = 0;
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    begun = performance.now();
    const encoder = createCommandEncoder(descriptor);
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = (passDescriptor) => {
      spent.passes++;
      return beginComputePass(passDescriptor);
    };
    return encoder;
  };
  const { queue } = device;
  const writeBuffer = queue.writeBuffer.bind(queue);
  queue.writeBuffer = (...parameters) => {
    spent.writes++;
    writeBuffer(...parameters);
  };
  const submit = queue.submit.bind(queue);
  queue.submit = (buffers) => {
    const encoded = performance.now();
    submit(buffers);
    spent.submits++;
    spent.submitting += performance.now() - encoded;
    spent.milliseconds += performance.now() - begun;
  };
}

const requestAdapter = gpu.requestAdapter.bind(gpu);
gpu.requestAdapter = async (request) => {
  const adapter = await requestAdapter(request);
  if (adapter === null) return null;
  const requestDevice = adapter.requestDevice.bind(adapter);
  adapter.requestDevice = async (descriptor) => {
    const device = await requestDevice(descriptor);
    watch(device);
    return device;
  };
  return adapter;
};

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const host = await serveSite({ site: resolve(options.engine), bundle: resolve(options.bundle) });
const { createEngine } = await import(join(resolve(options.engine), "engine.js"));
const engine = await createEngine({ bundleUrl: `${host.url}bundle/`, device: "gpu" });
const { height, width } = engine.info.manifest.model;
const request = {
  prompt: "gold circle with navy background",
  controlImage: { width, height, data: new Uint8ClampedArray(4 * width * height).fill(255) },
  seed: 0,
  numInferenceSteps: Number(options.steps),
  guidanceScale: options.guidance === undefined ? undefined : Number(options.guidance),
};

/** What a step takes, from the end of the first to the end of the last. @returns {Promise<Record<string, number>>} */
async function drawn() {
  /** @type {(typeof spent & { wall: number })[]} */
  const states = [];
  const onStep = () => states.push({ ...spent, wall: performance.now() });
  await engine.generate(request, { onStep });
  const [first, last] = [states[0], states[states.length - 1]];
  const steps = states.length - 1;
  return Object.fromEntries(
    Object.keys(first).map((key) => [key, (Reflect.get(last, key) - Reflect.get(first, key)) / steps]),
  );
}

await engine.generate({ ...request, numInferenceSteps: 1 }); // encodes the prompt, which later pictures do not
const launchesBefore = (await engine.stats()).dispatches;
await engine.generate({ ...request, numInferenceSteps: 1 });
const launchesOfOne = (await engine.stats()).dispatches;
await engine.generate({ ...request, numInferenceSteps: 2 });
const launches = (await engine.stats()).dispatches - launchesOfOne - (launchesOfOne - launchesBefore);
/** @type {Record<string, number>[]} */
const pictures = [];
for (let run = 0; run < Number(options.runs); run++) pictures.push(await drawn());
/** @param {string} key */
const each = (key) => median(pictures.map((picture) => picture[key]));

console.log(`${engine.info.manifest.model.name}, ${engine.info.dtype}, ${engine.info.device}; ${cpus()[0]?.model}`);
console.log(
  `a step: ${launches} launches, ${each("milliseconds").toFixed(2)} ms on the host, ${each("wall").toFixed(2)} ms in all`,
);
const microseconds = ["milliseconds", "submitting"].map((key) => ((1000 * each(key)) / launches).toFixed(1));
console.log(`a launch: ${microseconds[0]} us on the host, of which ${microseconds[1]} us are in the submission`);
const counts = ["passes", "bindGroups", "writes", "submits"].map((key) => `${each(key).toFixed(0)} ${key}`);
console.log(`a step reaches the device as ${counts.join(", ")}`);
process.exit(0); // Dawn's threads would keep the process alive

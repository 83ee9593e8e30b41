// Runs WGSL kernels, one dispatch each, on Dawn without a browser.
// usage: node run_wgsl.mjs <folder that has node_modules/webgpu> <job.json>
// job: {"buffers": {name: file}, "kernels": [{"wgsl": text, "grid": [x, y, z]}], "outputs": [name, ...]}
// A kernel's binding `name_ptr` is the buffer `name`; outputs are written back to their files.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, jobFile] = process.argv.slice(2);
const { create, globals } = await import(createRequire(join(folder, "package.json")).resolve("webgpu"));
Object.assign(globalThis, globals);

/** @type {{buffers: Record<string, string>, kernels: {wgsl: string, grid: number[]}[], outputs: string[]}} */
const job = JSON.parse(readFileSync(jobFile, "utf8"));
const gpu = create([]); // kept: Dawn crashes when its instance is collected
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error("no WebGPU adapter: set VK_ICD_FILENAMES to a Vulkan driver's manifest");
const wantsHalf = job.kernels.some((kernel) => kernel.wgsl.includes("enable f16"));
if (wantsHalf && !adapter.features.has("shader-f16")) {
  console.log("no shader-f16");
  process.exit(3);
}
const device = await adapter.requestDevice({
  requiredFeatures: wantsHalf ? ["shader-f16"] : [],
  requiredLimits: { maxComputeWorkgroupStorageSize: 32768 },
});
device.addEventListener("uncapturederror", (/** @type {GPUUncapturedErrorEvent} */ event) => {
  console.error(event.error.message);
  process.exit(1);
});

const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
const buffers = new Map();
for (const [name, file] of Object.entries(job.buffers)) {
  const bytes = readFileSync(file);
  const size = Math.ceil(bytes.byteLength / 4) * 4;
  const padded = new Uint8Array(size);
  padded.set(bytes);
  const buffer = device.createBuffer({ label: name, size, usage });
  device.queue.writeBuffer(buffer, 0, padded);
  buffers.set(name, { buffer, bytes: bytes.byteLength });
}

for (const { wgsl, grid } of job.kernels) {
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code: wgsl }) },
  });
  const entries = [];
  for (const [, binding, name] of wgsl.matchAll(/@binding\((\d+)\) var<storage, \w+> (\w+)_ptr/g)) {
    entries.push({ binding: Number(binding), resource: { buffer: buffers.get(name).buffer } });
  }
  const pod = wgsl.match(/@binding\((\d+)\) var<uniform> podArgs/);
  if (!pod) throw new Error("the shader has no podArgs");
  const uniform = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(uniform, 0, new Uint32Array([grid[0] - 1]));
  entries.push({ binding: Number(pod[1]), resource: { buffer: uniform } });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  const [x, y, z] = grid; // a larger x goes on in z, as in the runtime
  pass.dispatchWorkgroups(Math.min(x, 65535), y, z * Math.ceil(x / 65535));
  pass.end();
  device.queue.submit([encoder.finish()]);
}

for (const name of job.outputs) {
  const { buffer, bytes } = buffers.get(name);
  const staging = device.createBuffer({ size: buffer.size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  writeFileSync(job.buffers[name], new Uint8Array(staging.getMappedRange()).subarray(0, bytes));
}
device.destroy();
process.exit(0); // Dawn's threads would keep the process alive

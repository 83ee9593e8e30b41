/** Both contestants on one WebGPU adapter. */

import type { Adapter, Arena, Host, Job } from "./job";
import { OursOnWebgpu } from "./ours_on_webgpu";
import { PeerOnWebgpu } from "./peer_on_webgpu";

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|software/i;

/** Describe the adapter that a contest would use. */
export async function findAdapter(): Promise<Adapter> {
  return describe(await requestAdapter());
}

/** Open both contestants on the adapter. */
export async function openOnWebgpu(job: Job, { readFile, ortModule, onProgress }: Host): Promise<Arena> {
  const devices = watchDevices(navigator.gpu);
  const adapter = await requestAdapter();
  const library = await readFile(job.library);
  onProgress("opening our library: its pipelines are made");
  const began = performance.now();
  const ours = await OursOnWebgpu.open(adapter, library);
  const opened_ms = performance.now() - began;
  const copy_gigabytes_per_second = await measureCopy(ours.device, job.copy_bytes);
  const peer = await PeerOnWebgpu.open(ortModule, readFile, devices);
  return { ours, peer, opened_ms, copy_gigabytes_per_second, rest_ms: 0 };
}

async function requestAdapter(): Promise<GPUAdapter> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new Error("no WebGPU adapter");
  return adapter;
}

function describe({ info, features }: GPUAdapter): Adapter {
  const { vendor, architecture, device, description } = info;
  const words = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return {
    name: description || words || "an unnamed GPU",
    is_software: info.isFallbackAdapter || SOFTWARE.test(words),
    has_float16: features.has("shader-f16"),
  };
}

/** Return a list that grows with every device that is opened from now on, in order. */
function watchDevices(gpu: GPU): GPUDevice[] {
  const devices: GPUDevice[] = [];
  const requestAdapter = gpu.requestAdapter.bind(gpu);
  gpu.requestAdapter = async (options) => {
    const adapter = await requestAdapter(options);
    if (adapter === null) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      device.addEventListener("uncapturederror", ({ error }) => console.error(`WebGPU: ${error.message}`));
      devices.push(device);
      return device;
    };
    return adapter;
  };
  return devices;
}

/** Measure a copy on the device in gigabytes per second, counting the bytes read and the bytes written. */
async function measureCopy(device: GPUDevice, bytes: number): Promise<number> {
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [from, to] = [device.createBuffer({ size: bytes, usage }), device.createBuffer({ size: bytes, usage })];
  const repeats = 10;
  const seconds: number[] = [];
  for (let round = 0; round < 6; round++) {
    const began = performance.now();
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < repeats; i++) encoder.copyBufferToBuffer(from, 0, to, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    if (round > 0) seconds.push((performance.now() - began) / 1000);
  }
  from.destroy();
  to.destroy();
  return (2 * bytes * repeats) / Math.min(...seconds) / 1e9;
}

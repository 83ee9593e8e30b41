/** The peer's side of a contest on WebGPU: onnxruntime-web's WebGPU provider, with inputs and outputs on the GPU. */

import type * as ort from "onnxruntime-web/webgpu";
import { widenFloat16 } from "../../src/engine/float16";
import { passClock } from "./gpu_clock";
import { type Case, type Clock, type Contestant, type LoadedCase, type Optimizations, tensorBytes } from "./job";

type OnnxRuntime = typeof ort;

export class PeerOnWebgpu implements Contestant {
  /** @param devices the devices opened so far; the runtime opens its own with its first session */
  constructor(
    private readonly ort: OnnxRuntime,
    private readonly readFile: (name: string) => Promise<Uint8Array<ArrayBuffer>>,
    private readonly devices: readonly GPUDevice[],
  ) {}

  static async open(
    moduleUrl: string,
    readFile: (name: string) => Promise<Uint8Array<ArrayBuffer>>,
    devices: readonly GPUDevice[],
  ): Promise<PeerOnWebgpu> {
    const runtime: OnnxRuntime = await import(/* @vite-ignore */ moduleUrl);
    runtime.env.logLevel = "error";
    runtime.env.wasm.wasmPaths = new URL(".", moduleUrl).href;
    runtime.env.wasm.numThreads = 1; // the CPU only computes shapes
    return new PeerOnWebgpu(runtime, readFile, devices);
  }

  get clock(): Clock | undefined {
    return passClock(this.device);
  }

  private get device(): GPUDevice {
    return this.devices[this.devices.length - 1];
  }

  async load(work: Case, values: Uint8Array<ArrayBuffer>, optimizations: Optimizations): Promise<LoadedCase> {
    const model = await this.readFile(work.onnx);
    const session = await this.ort.InferenceSession.create(model, {
      executionProviders: ["webgpu"],
      preferredOutputLocation: "gpu-buffer",
      graphOptimizationLevel: optimizations,
      logSeverityLevel: 3,
    });
    const { device } = this;
    const buffers: GPUBuffer[] = [];
    const feeds: Record<string, ort.Tensor> = {};
    work.inputs.forEach((entry, i) => {
      const size = Math.ceil(entry.bytes / 16) * 16;
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      const buffer = device.createBuffer({ size, usage });
      device.queue.writeBuffer(buffer, 0, tensorBytes(values, entry));
      buffers.push(buffer);
      const options = { dataType: entry.dtype, dims: entry.shape };
      feeds[session.inputNames[i]] = this.ort.Tensor.fromGpuBuffer(buffer as never, options as never);
    });
    return {
      async call() {
        const results = await session.run(feeds);
        for (const output of Object.values(results)) output.dispose();
      },
      async finished() {
        await device.queue.onSubmittedWorkDone();
      },
      async outputs() {
        const results = await session.run(feeds);
        const read = [];
        for (const name of session.outputNames) read.push(toFloats(await results[name].getData(true)));
        return read;
      },
      async dispose() {
        for (const feed of Object.values(feeds)) feed.dispose();
        await session.release();
        for (const buffer of buffers) buffer.destroy();
      },
    };
  }
}

function toFloats(values: unknown): Float32Array {
  if (values instanceof Float32Array) return values;
  const { buffer, byteOffset, byteLength } = values as ArrayBufferView; // Float16Array, or its bits
  return widenFloat16(new Uint8Array(buffer, byteOffset, byteLength));
}

/** The peer's side of a contest on the processor: onnxruntime-web's WebAssembly provider. */

import type * as ort from "onnxruntime-web/wasm";
import { type Case, type Contestant, type LoadedCase, type Optimizations, type TensorEntry, tensorBytes } from "./job";

type OnnxRuntime = typeof ort;

export class PeerOnProcessor implements Contestant {
  private constructor(
    private readonly ort: OnnxRuntime,
    private readonly readFile: (name: string) => Promise<Uint8Array<ArrayBuffer>>,
    private readonly threads: number,
  ) {}

  static async open(
    moduleUrl: string,
    readFile: (name: string) => Promise<Uint8Array<ArrayBuffer>>,
    threads: number,
  ): Promise<PeerOnProcessor> {
    const runtime: OnnxRuntime = await import(/* @vite-ignore */ moduleUrl);
    runtime.env.logLevel = "error";
    runtime.env.wasm.wasmPaths = new URL(".", moduleUrl).href;
    runtime.env.wasm.numThreads = threads;
    return new PeerOnProcessor(runtime, readFile, threads);
  }

  async load(work: Case, values: Uint8Array<ArrayBuffer>, optimizations: Optimizations): Promise<LoadedCase> {
    const session = await this.ort.InferenceSession.create(await this.readFile(work.onnx), {
      executionProviders: ["wasm"],
      graphOptimizationLevel: optimizations,
      logSeverityLevel: 3,
    });
    const { numThreads } = this.ort.env.wasm; // it becomes 1 where threads cannot be had
    if (numThreads !== this.threads) throw new Error(`the peer got ${numThreads} of ${this.threads} threads`);
    const tensor = (entry: TensorEntry) => {
      const { buffer } = tensorBytes(values, entry).slice();
      const data = entry.dtype === "int32" ? new Int32Array(buffer) : new Float32Array(buffer);
      return new this.ort.Tensor(entry.dtype, data, entry.shape);
    };
    const feeds = Object.fromEntries(work.inputs.map((entry, i) => [session.inputNames[i], tensor(entry)]));
    return {
      async call() {
        await session.run(feeds); // its outputs are copied out of its memory
      },
      async finished() {},
      async outputs() {
        const results = await session.run(feeds);
        return session.outputNames.map((name) => results[name].data as Float32Array);
      },
      async dispose() {
        await session.release();
      },
    };
  }
}

/**
 * A bundle's components on a WebGPU device: numbers in, numbers out, and on the device what only passes between them.
 * The twin of mlc_controlnet/runtime/engine.py, on TVM's virtual machine in wasm.
 */

import * as tvmjs from "@mlc-ai/web-runtime";
import {
  COMPONENTS,
  type ComponentName,
  type Components,
  type Context,
  type ControlEmbedding,
  type FloatArray,
  type Residuals,
} from "./components";
import { lostDevice, type OpenDevice, watchPipelines } from "./device";
import type { Bundle } from "./load";
import { COMPUTE, type Manifest } from "./manifest";
import { type LoadOptions, withDownloadMeter } from "./progress";
import { arrayItems, bytesOf, createTensor, inScope, toFloats } from "./tensor";
import { createWasi } from "./wasi";
import { loadWeights } from "./weights";

/** What the GPU did since the engine was loaded. */
export interface EngineStats {
  readonly dispatches: number;
  readonly peakGpuMebibytes: number;
}

/** A component's function and what it is called with each time. */
interface LoadedComponent {
  readonly run: tvmjs.PackedFunc;
  /** One tensor for each input that the host writes before a call; none where another component's output goes in. */
  readonly slots: readonly (tvmjs.Tensor | undefined)[];
  /** The one tuple that the function takes last. */
  readonly params: tvmjs.TVMArray;
}

type Input = FloatArray | Int32Array<ArrayBuffer> | tvmjs.Tensor;

export class Engine implements Components {
  /** The first thing that made this engine unusable: a lost device, a GPU error, a trap in the library. */
  private broken: Error | undefined;
  /** Rejects when the engine breaks while somebody waits for the device. */
  private readonly breaking: Promise<never>;
  private unloaded = false;

  private constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly gpu: tvmjs.DLDevice,
    private readonly vm: tvmjs.VirtualMachine,
    private readonly loaded: ReadonlyMap<ComponentName, LoadedComponent>,
    device: GPUDevice,
  ) {
    this.breaking = new Promise((_, reject) => {
      const fail = (error: Error) => {
        this.broken ??= error;
        reject(this.broken);
      };
      device.lost.then((info) => this.unloaded || fail(lostDevice(info)));
      device.addEventListener("uncapturederror", ({ error }) => fail(new Error(`WebGPU: ${error.message}`)));
    });
    this.breaking.catch(() => {}); // who waits at that moment hears of it; later calls find `broken`
  }

  /**
   * Fetch library and weights while the kernels compile. Every file is checked against its hash.
   *
   * The engine owns the device from here on; where loading fails it is given back.
   */
  static async load(bundle: Bundle, { device, library }: OpenDevice, options: LoadOptions = {}): Promise<Engine> {
    const lost = device.lost.then((info): never => {
      throw lostDevice(info);
    });
    let tvm: tvmjs.Instance | undefined;
    try {
      const metered = withDownloadMeter(bundle, library, options);
      const wasm = await bundle.readFile(library.file, metered);
      tvm = await tvmjs.instantiate(wasm.buffer, createWasi(console.info, console.error), console.info);
      watchPipelines(device, options.onProgress);
      tvm.initWebGPU(device);
      const gpu = tvm.webgpu();
      const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(gpu)));
      const [weights] = await Promise.race([
        lost,
        Promise.all([
          loadWeights(tvm, gpu, bundle, library, metered),
          tvm.asyncLoadWebGPUPipelines(vm.getInternalModule()),
        ]),
      ]);
      options.signal?.throwIfAborted();
      return new Engine(tvm, gpu, vm, loadComponents(tvm, gpu, vm, bundle.manifest, weights), device);
    } catch (error) {
      tvm?.dispose();
      device.destroy();
      throw error;
    } finally {
      lost.catch(() => {}); // from here on the engine's own business
    }
  }

  /** Free library and weights and give the device back. The engine can not be used again. */
  unload(): void {
    if (this.unloaded) return;
    this.unloaded = true;
    if (this.broken !== undefined) return; // tvmjs disposes itself when the device is lost
    for (const { run, slots, params } of this.loaded.values()) {
      for (const object of [run, ...slots, params]) object?.dispose();
    }
    this.vm.dispose();
    this.tvm.dispose(); // and the device with it
  }

  textEncoder(tokenIds: Int32Array<ArrayBuffer>): Context {
    return this.keep(this.call("text_encoder", [tokenIds]));
  }

  controlEmbedding(controlImage: FloatArray): ControlEmbedding {
    return this.keep(this.call("control_embedding", [controlImage]));
  }

  controlnet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    control: ControlEmbedding,
    conditioningScale: number,
  ): Residuals {
    const [time, scale] = [Float32Array.of(timestep), Float32Array.of(conditioningScale)];
    const inputs = [sample, time, ...tensorsOf(context), ...tensorsOf(control), scale];
    return this.keep(this.call("controlnet", inputs));
  }

  async unet(sample: FloatArray, timestep: number, context: Context, residuals: Residuals): Promise<FloatArray> {
    const inputs = [sample, Float32Array.of(timestep), ...tensorsOf(context), ...tensorsOf(residuals)];
    return this.readOnce(this.call("unet", inputs));
  }

  async vaeDecoder(latents: FloatArray): Promise<FloatArray> {
    return this.readOnce(this.call("vae_decoder", [latents]));
  }

  stats(): EngineStats {
    const text = this.tvm.runtimeStatsText(); // "peak-memory=21 MB, all-memory=40 MB, shader-submissions=1234"
    const field = (name: string) => Number(new RegExp(`${name}=(\\d+)`).exec(text)?.[1] ?? 0);
    return { dispatches: field("shader-submissions"), peakGpuMebibytes: field("peak-memory") };
  }

  /** Queue one component; the tensors that it returns are the caller's to dispose. */
  private call(name: ComponentName, inputs: readonly Input[]): tvmjs.Tensor[] {
    return this.guarded(() => {
      const { run, slots, params } = this.loaded.get(name) as LoadedComponent;
      // The device first runs what was queued before such a write, so a slot can be written again at once.
      const written = inputs.map((input, i) =>
        input instanceof tvmjs.Tensor ? input : slots[i]?.copyFromRawBytes(bytesOf(input)),
      );
      return inScope(this.tvm, (scope) => {
        const result = run(...written, params);
        const tensors = result instanceof tvmjs.TVMArray ? arrayItems(result) : [result as tvmjs.Tensor];
        return tensors.map((tensor) => scope.detachFromCurrentScope(tensor));
      });
    });
  }

  private keep(tensors: tvmjs.Tensor[]): TensorsOnDevice {
    return new TensorsOnDevice(tensors, () => this.read(tensors));
  }

  private async readOnce(tensors: tvmjs.Tensor[]): Promise<FloatArray> {
    try {
      const [values] = await this.read(tensors);
      return values;
    } finally {
      for (const tensor of tensors) tensor.dispose();
    }
  }

  /** Wait for the device and copy tensors to the host. */
  private async read(tensors: readonly tvmjs.Tensor[]): Promise<FloatArray[]> {
    const copies = this.guarded(() =>
      inScope(this.tvm, (scope) =>
        tensors.map((tensor) => {
          const copy = scope.detachFromCurrentScope(scope.empty(tensor.shape, tensor.dtype, scope.cpu()));
          return copy.copyFrom(tensor); // queued; the values are there after sync
        }),
      ),
    );
    await Promise.race([this.gpu.sync(), this.breaking]);
    return this.guarded(() =>
      copies.map((copy) => {
        const values = toFloats(copy);
        copy.dispose();
        return values;
      }),
    );
  }

  /** Run `action` unless something broke before. A trap leaves the library's memory in an unknown state: that breaks it. */
  private guarded<T>(action: () => T): T {
    if (this.unloaded) throw new Error("the engine was unloaded");
    if (this.broken !== undefined) throw this.broken;
    try {
      return action();
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) this.broken = error;
      throw error;
    }
  }
}

class TensorsOnDevice implements Context, ControlEmbedding, Residuals {
  constructor(
    readonly tensors: readonly tvmjs.Tensor[],
    readonly read: () => Promise<FloatArray[]>,
  ) {}

  dispose(): void {
    for (const tensor of this.tensors) tensor.dispose();
  }
}

function tensorsOf(value: Context | ControlEmbedding | Residuals): readonly tvmjs.Tensor[] {
  return (value as TensorsOnDevice).tensors;
}

/** Look up each component's function and pack its params. The tuples own the weights from here on. */
function loadComponents(
  tvm: tvmjs.Instance,
  gpu: tvmjs.DLDevice,
  vm: tvmjs.VirtualMachine,
  manifest: Manifest,
  weights: ReadonlyMap<string, tvmjs.Tensor>,
): Map<ComponentName, LoadedComponent> {
  const loaded = inScope(
    tvm,
    (scope) =>
      new Map(
        COMPONENTS.map((name) => {
          const { inputs, params } = manifest.components[name];
          const component: LoadedComponent = {
            run: scope.detachFromCurrentScope(vm.getFunction(name)),
            slots: inputs.map(({ shape, dtype }) =>
              dtype === COMPUTE ? undefined : createTensor(tvm, gpu, shape, dtype),
            ),
            params: scope.detachFromCurrentScope(scope.makeTVMArray(params.map((param) => weights.get(param)))),
          };
          return [name, component];
        }),
      ),
  );
  for (const weight of weights.values()) weight.dispose();
  return loaded;
}

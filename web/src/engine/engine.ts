/**
 * A bundle's components as functions on a WebGPU device or the processor, by TVM's virtual machine in wasm.
 *
 * The host passes and receives arrays. Values that only pass from one component to the next stay on the device.
 * Twin: mlc_controlnet/runtime/engine.py.
 */

import * as tvmjs from "@mlc-ai/web-runtime";
import { CommandLists } from "./command_lists.ts";
import type {
  Components,
  Context,
  ControlEmbedding,
  DeepFeature,
  FloatArray,
  OnDevice,
  Residuals,
} from "./components.ts";
import { COMPUTE } from "./constants.ts";
import { type BufferBytes, countBuffers, lostDevice, type OpenDevice, watchPipelines } from "./device.ts";
import { narrowFloat32 } from "./float16.ts";
import type { Bundle } from "./load.ts";
import { callMachine, freePool } from "./machine.ts";
import {
  type ControlNetEntry,
  drawingComponents,
  embedsGuidance,
  type Library,
  layersOf,
  type Manifest,
  residuals as residualSpecs,
} from "./manifest.ts";
import { type Memory, MemoryFullError } from "./memory.ts";
import { type LoadOptions, withDownloadMeter } from "./progress.ts";
import type { Size } from "./size.ts";
import { bytesOf, createTensor, createZeros, fillTensor, inScope, toFloats } from "./tensor.ts";
import { type RunningLibrary, runLibrary } from "./threads.ts";
import { type FunctionEntry, forSize, functionFor } from "./variant.ts";
import { awaitWork, nextTask } from "./wait.ts";
import { createWasi } from "./wasi.ts";
import { neededShards, Weights } from "./weights.ts";

/** A function of the library, and the tensors that it reads. */
interface LoadedFunction {
  readonly run: tvmjs.PackedFunc;
  /** One tensor for each input that the host writes before a call; undefined for another component's output. */
  readonly slots: readonly (tvmjs.Tensor | undefined)[];
}

type Input = FloatArray | Int32Array<ArrayBuffer> | tvmjs.Tensor;

export class Engine implements Components {
  /** The first error that made this engine unusable: a lost device, a GPU error, a trap in the library. */
  private broken: Error | undefined;
  /** Rejects when the engine breaks, so that a call that waits for the device ends. */
  private readonly breaking: Promise<never>;
  private unloaded = false;
  /** Settles when the latest call is on the device's queue. */
  private queued: Promise<unknown> = Promise.resolve();
  private readonly manifest: Manifest;
  /** The functions that were called, by name. */
  private readonly functions = new Map<string, LoadedFunction>();

  private constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly target: tvmjs.DLDevice,
    private readonly vm: tvmjs.VirtualMachine,
    private readonly bundle: Bundle,
    private readonly library: Library,
    private readonly weights: Weights,
    memory: Memory,
    private readonly device: GPUDevice | undefined,
    private readonly gpuBytes: BufferBytes,
    private readonly running: RunningLibrary | undefined,
    /** On a GPU. */
    private readonly lists: CommandLists | undefined,
  ) {
    this.manifest = bundle.manifest;
    this.breaking = new Promise((_, reject) => {
      const fail = (error: Error) => {
        this.broken ??= error;
        reject(this.broken);
      };
      device?.lost.then((info) => this.unloaded || fail(lostDevice(info, memory, gpuBytes.live)));
      device?.addEventListener("uncapturederror", ({ error }) => {
        if (!isOutOfMemory(error)) return fail(new Error(`WebGPU: ${error.message}`));
        fail(new MemoryFullError(memory, gpuBytes.live));
        device.destroy(); // tvmjs then disposes itself
      });
    });
    this.breaking.catch(() => {}); // a call that waits at that moment rejects; later calls find `broken`
  }

  /**
   * Fetch the weights while the kernels compile. Every file is checked against its hash.
   *
   * The engine owns the device from here on. If loading fails, it destroys the device. Without one, the processor runs all.
   */
  static async load(
    bundle: Bundle,
    { device, library }: OpenDevice,
    memory: Memory,
    options: LoadOptions = {},
  ): Promise<Engine> {
    const gpuBytes = device === undefined ? { live: 0, peak: 0 } : countBuffers(device);
    const lost =
      device === undefined
        ? new Promise<never>(() => {})
        : device.lost.then((info): never => {
            throw lostDevice(info, memory, gpuBytes.live);
          });
    const aborted = new Promise<never>((_, reject) => {
      options.signal?.addEventListener("abort", () => reject(options.signal?.reason), { once: true });
    });
    aborted.catch(() => {}); // an abort after loading is not meant for it
    let tvm: tvmjs.Instance | undefined;
    let running: RunningLibrary | undefined; // on the processor
    try {
      const needed = neededShards(bundle.manifest, drawingComponents(bundle.manifest));
      const metered = withDownloadMeter(bundle, [library.file, ...needed.keys()], options);
      const wasm = await bundle.readFile(library.file, metered);
      const wasi = createWasi(console.info, console.error);
      if (device === undefined) running = await runLibrary(wasm, wasi);
      // Not its buffer, which may be larger than the file.
      tvm = running?.tvm ?? (await tvmjs.instantiate(wasm as unknown as ArrayBuffer, wasi, console.info));
      let lists: CommandLists | undefined;
      if (device !== undefined) {
        watchPipelines(device, options.onProgress);
        lists = new CommandLists(tvm, device);
        tvm.initWebGPU(device);
      }
      const target = device === undefined ? tvm.cpu() : tvm.webgpu();
      const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(target)));
      const loaded = tvm;
      const freeWorkspace = () => (lists === undefined ? freePool(loaded) : lists.free());
      const weights = new Weights(tvm, target, vm, bundle, library, memory, freeWorkspace);
      const pipelines = device === undefined ? undefined : tvm.asyncLoadWebGPUPipelines(vm.getInternalModule());
      await Promise.race([lost, aborted, Promise.all([weights.fetch(needed, metered), pipelines])]);
      // Now, so that a GPU that is full is found out at once.
      for (const name of drawingComponents(bundle.manifest)) {
        await Promise.race([lost, aborted, weights.merge(name, () => target.sync())]);
      }
      options.signal?.throwIfAborted();
      const engine = new Engine(tvm, target, vm, bundle, library, weights, memory, device, gpuBytes, running, lists);
      for (const name of drawingComponents(bundle.manifest)) engine.loaded(bundle.manifest.components[name]);
      return engine;
    } catch (error) {
      running?.stop();
      tvm?.dispose();
      device?.destroy();
      throw error;
    } finally {
      lost.catch(() => {}); // the engine handles a later loss itself
    }
  }

  /**
   * Fetch the weights of components that the engine does not have yet: further ControlNets, the VAE's encoder. What is
   * there stays.
   */
  async require(components: readonly string[], options: LoadOptions = {}): Promise<void> {
    const missing = this.weights.lacking(components);
    if (!missing.size) return;
    this.guarded(() => {});
    const metered = withDownloadMeter(this.bundle, missing.keys(), options);
    await Promise.race([this.weights.fetch(missing, metered), this.breaking]);
  }

  /** Free library and weights and destroy the device. The engine cannot be used afterwards. */
  unload(): void {
    if (this.unloaded) return;
    this.unloaded = true;
    this.running?.stop();
    if (this.broken !== undefined) return; // tvmjs disposes itself when the device is lost
    for (const { run, slots } of this.functions.values()) {
      for (const object of [run, ...slots]) object?.dispose();
    }
    this.weights.dispose();
    this.vm.dispose();
    this.tvm.dispose(); // and the device with it
  }

  /** How many threads of the processor draw; 0 on a GPU. */
  get threads(): number {
    return this.running?.threads ?? 0;
  }

  async textEncoder(tokenIds: Int32Array<ArrayBuffer>, clipSkip = 0): Promise<Context> {
    return this.keep(await this.call("text_encoder", [tokenIds, this.layerGates("text_encoder", clipSkip)]));
  }

  async textEncoder2(
    tokenIds: Int32Array<ArrayBuffer>,
    endPosition: number,
    first: Context,
    clipSkip = 0,
  ): Promise<Context> {
    const gates = this.layerGates("text_encoder_2", clipSkip);
    return this.keep(
      await this.call("text_encoder_2", [tokenIds, gates, Int32Array.of(endPosition), ...tensorsOf(first)]),
    );
  }

  async context(values: FloatArray, textEmbeds?: FloatArray, width = this.textWidth()): Promise<Context> {
    const { dtype } = this.library;
    const put = (numbers: FloatArray, shape: number[]) => {
      const tensor = createTensor(this.tvm, this.target, shape, dtype);
      fillTensor(this.tvm, tensor, bytesOf(dtype === "float16" ? narrowFloat32(numbers) : numbers));
      return tensor;
    };
    return this.keep(
      this.guarded(() => {
        const pooled = textEmbeds === undefined ? [] : [put(textEmbeds, [1, textEmbeds.length])];
        return [put(values, [1, values.length / width, width]), ...pooled];
      }),
    );
  }

  firstWidth(): number {
    const [, , width] = this.manifest.components.text_encoder.outputs[0].shape;
    return width;
  }

  async controlEmbedding(
    controlImage: FloatArray,
    controlnet: ControlNetEntry,
    size?: Size,
  ): Promise<ControlEmbedding> {
    const tensors = await this.call(controlnet.control_embedding, [controlImage], size);
    return Object.assign(this.keep(tensors), { controlnet });
  }

  async controlnet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    control: ControlEmbedding,
    conditioningScales: readonly number[],
  ): Promise<Residuals> {
    const [time, scales] = [Float32Array.of(timestep), Float32Array.from(conditioningScales)];
    const [encoded, ...added] = conditionsOf(context);
    const inputs = [sample, time, encoded, ...added, ...tensorsOf(control), scales];
    return this.keep(await this.call(control.controlnet.controlnet, inputs));
  }

  async residualSum(one: Residuals, other: Residuals): Promise<Residuals> {
    return this.keep(await this.call("residual_sum", [...tensorsOf(one), ...tensorsOf(other)]));
  }

  async zeroResiduals(size: Size = this.manifest.model): Promise<Residuals> {
    const dtypeOf = (dtype: string) => (dtype === COMPUTE ? this.library.dtype : dtype);
    const specs = residualSpecs(forSize(this.manifest, size));
    const zeros = () => specs.map(({ shape, dtype }) => createZeros(this.tvm, this.target, shape, dtypeOf(dtype)));
    return this.keep(this.guarded(zeros));
  }

  async unet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale = 1,
  ): Promise<FloatArray> {
    const { output, feature } = await this.unetAndFeature(sample, timestep, context, residuals, guidanceScale);
    feature?.dispose();
    return output;
  }

  async unetAndFeature(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale = 1,
  ): Promise<{ output: FloatArray; feature: DeepFeature | undefined }> {
    const conditions = this.conditions(timestep, context, guidanceScale);
    const [output, ...rest] = await this.call("unet", [sample, ...conditions, ...tensorsOf(residuals)]);
    const feature = rest.length ? this.keep(rest) : undefined;
    try {
      return { output: await this.readOnce([output]), feature };
    } catch (error) {
      feature?.dispose();
      throw error;
    }
  }

  async unetShallow(
    sample: FloatArray,
    timestep: number,
    context: Context,
    feature: DeepFeature,
    residuals: Residuals,
    guidanceScale = 1,
  ): Promise<FloatArray> {
    const { inputs: specs } = this.manifest.components.unet_shallow;
    const count = specs.filter(({ name }) => name.includes("residual")).length;
    const conditions = this.conditions(timestep, context, guidanceScale);
    const read = [...tensorsOf(feature), ...tensorsOf(residuals).slice(0, count)];
    return this.readOnce(await this.call("unet_shallow", [sample, ...conditions, ...read]));
  }

  async vaeDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    const image = await this.readOnce(await this.call("vae_decoder", [latents], size));
    this.guarded(() => this.weights.freeWorkspace()); // the largest workspace, and the decoder is the last component of a picture
    return image;
  }

  async previewDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    return this.readOnce(await this.call("preview_decoder", [latents], size));
  }

  async vaeEncoder(image: FloatArray, size?: Size): Promise<FloatArray> {
    return this.readOnce(await this.call("vae_encoder", [image], size));
  }

  stats() {
    const text = this.tvm.runtimeStatsText(); // "peak-memory=21 MB, all-memory=40 MB, shader-submissions=1234"
    const counted = Number(/shader-submissions=(\d+)/.exec(text)?.[1] ?? 0);
    const { live, peak } = this.gpuBytes;
    return {
      dispatches: this.lists?.launched(counted) ?? counted,
      peakGpuMebibytes: Math.ceil(peak / 2 ** 20),
      gpuBytes: live,
    };
  }

  private layerGates(textEncoder: string, clipSkip: number): FloatArray {
    const layers = layersOf(this.manifest, textEncoder);
    return Float32Array.from({ length: layers }, (_, layer) => (layer < layers - clipSkip ? 1 : 0));
  }

  /** D: the width of a context, of all text encoders. */
  private textWidth(): number {
    const { text_encoder, text_encoder_2 = text_encoder } = this.manifest.components;
    const [, , width] = text_encoder_2.outputs[0].shape;
    return width;
  }

  /** A UNet's inputs between sample and residuals, with the guidance scale if it embeds that. */
  private conditions(timestep: number, context: Context, guidanceScale: number): Input[] {
    const guidance = embedsGuidance(this.manifest) ? [Float32Array.of(guidanceScale)] : [];
    const [encoded, ...added] = conditionsOf(context);
    return [Float32Array.of(timestep), encoded, ...guidance, ...added];
  }

  /** Queue one component after the earlier calls. The caller disposes the tensors that it returns. */
  private call(name: string, inputs: readonly Input[], size?: Size): Promise<tvmjs.Tensor[]> {
    const call = this.queued.then(async () => {
      this.guarded(() => {});
      const params = await this.weights.take(name, () => this.synced());
      return this.guarded(() => this.run(name, inputs, params, size));
    });
    this.queued = call.catch(() => {});
    return call;
  }

  private run(name: string, inputs: readonly Input[], params: tvmjs.TVMArray, size?: Size): tvmjs.Tensor[] {
    const shapes = inputs.map((input) => (input instanceof tvmjs.Tensor ? input.shape : input.length));
    const entry = functionFor(this.manifest, name, shapes, size);
    const { run, slots } = this.loaded(entry);
    // The device finishes the work that was queued before such a write, so a slot can be written again at once.
    const written = inputs.map((input, i) => {
      return input instanceof tvmjs.Tensor ? input : (slots[i] as tvmjs.Tensor).copyFromRawBytes(bytesOf(input));
    });
    const call = { name: entry.function, run, inputs: written, params };
    return this.lists?.call(call) ?? callMachine(this.tvm, call);
  }

  /** Look a function up and make its slots, at its first call. */
  private loaded({ function: name, inputs }: FunctionEntry): LoadedFunction {
    const known = this.functions.get(name);
    if (known !== undefined) return known;
    const run = inScope(this.tvm, (scope) => scope.detachFromCurrentScope(this.vm.getFunction(name)));
    const slots = inputs.map(({ shape, dtype }) =>
      dtype === COMPUTE ? undefined : createTensor(this.tvm, this.target, shape, dtype),
    );
    const loaded = { run, slots };
    this.functions.set(name, loaded);
    return loaded;
  }

  /** Wait until the device has finished the queued work. */
  private async synced(): Promise<void> {
    if (this.device === undefined) return nextTask(); // the work is done; a message that cancels the picture is read now
    await awaitWork(Promise.race([this.target.sync(), this.breaking]), this.device);
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
    await this.synced();
    return this.guarded(() =>
      copies.map((copy) => {
        const values = toFloats(copy);
        copy.dispose();
        return values;
      }),
    );
  }

  /** Run `action` unless the engine is broken. A trap breaks it: the library's memory is then in an unknown state. */
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

/** Node's WebGPU and workers of old browsers may lack the class. */
function isOutOfMemory(error: GPUError): boolean {
  return typeof GPUOutOfMemoryError !== "undefined" && error instanceof GPUOutOfMemoryError;
}

class TensorsOnDevice implements Context, Residuals {
  constructor(
    readonly tensors: readonly tvmjs.Tensor[],
    readonly read: () => Promise<FloatArray[]>,
  ) {}

  /** Free the last tensor first: TVM's pool then gives the next call the same buffers, and bind groups are found again. */
  dispose(): void {
    for (const tensor of [...this.tensors].reverse()) tensor.dispose();
  }
}

/** An encoded prompt and, of Stable Diffusion XL, its pooled output and time ids. */
function conditionsOf(context: Context): Input[] {
  return [...tensorsOf(context), ...(context.timeIds === undefined ? [] : [context.timeIds])];
}

function tensorsOf(value: OnDevice): readonly tvmjs.Tensor[] {
  return (value as TensorsOnDevice).tensors;
}

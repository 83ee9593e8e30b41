/**
 * A bundle's components as functions on a WebGPU device or the processor, by TVM's virtual machine in wasm.
 *
 * The host passes and receives arrays. Values that only pass from one component to the next stay on the device.
 * Twin: mlc_controlnet/runtime/engine.py.
 */

import type { Components, Context, ControlEmbedding, DeepFeature, FloatArray, Residuals } from "./components.ts";
import type { OpenDevice } from "./device.ts";
import { Executor, type Input, type Started, tensorsOf } from "./executor.ts";
import type { Bundle } from "./load.ts";
import type { ControlNetEntry, Manifest } from "./manifest.ts";
import type { Memory } from "./memory.ts";
import { drawingComponents, embedsGuidance, layersOf, residuals as residualSpecs } from "./model_traits.ts";
import { type LoadOptions, withDownloadMeter } from "./progress.ts";
import type { Size } from "./size.ts";
import { startLibrary } from "./start_library.ts";
import { forSize } from "./variant.ts";

export class Engine implements Components {
  private readonly manifest: Manifest;
  private readonly executor: Executor;

  private constructor(private readonly started: Started) {
    this.manifest = started.bundle.manifest;
    this.executor = new Executor(started);
  }

  /**
   * Fetch the weights while the kernels compile, which goes on afterwards. Every file is checked against its hash.
   *
   * The engine owns the device from here on. If loading fails, it destroys the device. Without one, the processor runs all.
   */
  static async load(bundle: Bundle, opened: OpenDevice, memory: Memory, options: LoadOptions = {}): Promise<Engine> {
    const engine = new Engine(await startLibrary(bundle, opened, memory, options));
    engine.executor.caller = options; // of a picture, if this engine takes the place of one whose device was lost
    for (const name of drawingComponents(bundle.manifest)) engine.executor.loaded(bundle.manifest.components[name]);
    return engine;
  }

  /**
   * Fetch the weights of components that the engine does not have yet: further ControlNets, the VAE's encoder. What is
   * there stays. Later calls report to the same caller while they wait for their kernels.
   */
  async require(components: readonly string[], options: LoadOptions = {}): Promise<void> {
    const { bundle, weights } = this.started;
    this.executor.caller = options;
    const missing = weights.lacking(components);
    if (!missing.size) return;
    this.executor.guarded(() => {});
    const metered = withDownloadMeter(bundle, missing.keys(), options);
    await this.executor.unlessBroken(weights.fetch(missing, metered));
  }

  /** Free library and weights and destroy the device. The engine cannot be used afterwards. */
  unload(): void {
    this.executor.stop();
  }

  /** How many threads of the processor draw; 0 on a GPU. */
  get threads(): number {
    return this.started.running?.threads ?? 0;
  }

  async textEncoder(tokenIds: Int32Array<ArrayBuffer>, clipSkip = 0): Promise<Context> {
    return this.executor.keep(
      await this.executor.call("text_encoder", [tokenIds, this.layerGates("text_encoder", clipSkip)]),
    );
  }

  async textEncoder2(
    tokenIds: Int32Array<ArrayBuffer>,
    endPosition: number,
    first: Context,
    clipSkip = 0,
  ): Promise<Context> {
    const gates = this.layerGates("text_encoder_2", clipSkip);
    return this.executor.keep(
      await this.executor.call("text_encoder_2", [tokenIds, gates, Int32Array.of(endPosition), ...tensorsOf(first)]),
    );
  }

  async context(values: FloatArray, textEmbeds?: FloatArray, width = this.textWidth()): Promise<Context> {
    const { executor } = this;
    return this.executor.keep(
      this.executor.guarded(() => {
        const pooled = textEmbeds === undefined ? [] : [executor.put(textEmbeds, [1, textEmbeds.length])];
        return [executor.put(values, [1, values.length / width, width]), ...pooled];
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
    const tensors = await this.executor.call(controlnet.control_embedding, [controlImage], size);
    return Object.assign(this.executor.keep(tensors), { controlnet });
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
    return this.executor.keep(await this.executor.call(control.controlnet.controlnet, inputs));
  }

  async residualSum(one: Residuals, other: Residuals): Promise<Residuals> {
    return this.executor.keep(await this.executor.call("residual_sum", [...tensorsOf(one), ...tensorsOf(other)]));
  }

  async zeroResiduals(size: Size = this.manifest.model): Promise<Residuals> {
    const specs = residualSpecs(forSize(this.manifest, size));
    const zeros = () => specs.map(({ shape, dtype }) => this.executor.zeros(shape, dtype));
    return this.executor.keep(this.executor.guarded(zeros));
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
    const [output, ...rest] = await this.executor.call("unet", [sample, ...conditions, ...tensorsOf(residuals)]);
    const feature = rest.length ? this.executor.keep(rest) : undefined;
    try {
      return { output: await this.executor.readOnce([output]), feature };
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
    return this.executor.readOnce(await this.executor.call("unet_shallow", [sample, ...conditions, ...read]));
  }

  async vaeDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    const image = await this.executor.readOnce(await this.executor.call("vae_decoder", [latents], size));
    this.executor.guarded(() => this.started.weights.freeWorkspace()); // the largest workspace, and the decoder is the last component of a picture
    return image;
  }

  async previewDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    return this.executor.readOnce(await this.executor.call("preview_decoder", [latents], size));
  }

  async vaeEncoder(image: FloatArray, size?: Size): Promise<FloatArray> {
    return this.executor.readOnce(await this.executor.call("vae_encoder", [image], size));
  }

  stats() {
    const { tvm, lists, gpuBytes } = this.started;
    const text = tvm.runtimeStatsText(); // "peak-memory=21 MB, all-memory=40 MB, shader-submissions=1234"
    const counted = Number(/shader-submissions=(\d+)/.exec(text)?.[1] ?? 0);
    const { live, peak } = gpuBytes;
    return {
      dispatches: lists?.launched(counted) ?? counted,
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
}

/** An encoded prompt and, of Stable Diffusion XL, its pooled output and time ids. */
function conditionsOf(context: Context): Input[] {
  return [...tensorsOf(context), ...(context.timeIds === undefined ? [] : [context.timeIds])];
}

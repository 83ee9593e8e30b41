/**
 * Draw pictures with a bundle: text encoder, denoising loop, decoder.
 *
 * Twin: mlc_controlnet/runtime/pipeline.py, the same functions in the same order.
 */

import type { Components, Context, FloatArray, OnDevice, Residuals } from "./components.ts";
import { affects, type Control, controlUnits, isActive } from "./controls.ts";
import { UserError } from "./errors.ts";
import { type Inpainting, prepareInpainting } from "./inpainting.ts";
import { type LatentPreview, type Manifest, residuals as residualSpecs } from "./manifest.ts";
import { standardNormal } from "./noise.ts";
import type { Image } from "./picture.ts";
import { prepareImage } from "./prepare_image.ts";
import { encodePrompt, padChunks, tokenizePrompt } from "./prompts.ts";
import { controlImages, type GenerateRequest, resolve, type Settings, toMetadata, words } from "./request.ts";
import { pickTable, type SamplerRow, type SamplerTable, type SamplerTables } from "./sampler.ts";
import type { PromptTokenizer } from "./tokenizer.ts";

/** Of a prompt: what the UNet is compiled for. */
const MAX_CHUNKS = 1;

/** The inputs that are the same for every step of the denoising loop. */
export interface Conditions {
  /** The context of the prompt. With guidance, the negative prompt's context comes first. */
  readonly contexts: readonly Context[];
  readonly controls: readonly Control[];
  /** The channels after the latents in an inpainting UNet's sample: float32 [1, _, h, w] each. */
  readonly extraChannels: readonly FloatArray[];
}

/** The state after one step of the denoising loop. */
export interface Step {
  /** 0 .. count - 1 */
  readonly index: number;
  readonly count: number;
  readonly timestep: number;
  /** float32 [1, C, h, w]: the sample after this step. */
  readonly x: FloatArray;
  /** float32 [1, C, h, w]: the final latents as this step predicts them. */
  readonly x0: FloatArray;
  /** x0 as a small picture, w x h, one pixel per latent cell; computed by this call, without the VAE. */
  preview(): Image;
}

/** A finished picture and how it was made. */
export interface GeneratedImage extends Image {
  /** Complete: the defaults and the seed are filled in. */
  readonly settings: Settings;
  /** For the PNG file. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** The parts of a pipeline: the bundle's data, and its components on a device. */
export interface Model {
  readonly manifest: Manifest;
  /** sha256 of the manifest. */
  readonly bundleSha256: string;
  readonly tokenizer: PromptTokenizer;
  readonly tables: SamplerTables;
  readonly components: Components;
}

/** Draws pictures with one loaded bundle. */
export class ControlNetPipeline {
  constructor(private readonly model: Model) {}

  /**
   * Draw one picture. It yields after every step, so the caller can show progress, preview or cancel, and returns the
   * picture. A loop that ends early frees what it holds.
   *
   * `onNotice` is called with every change to the inputs: a prompt that was cut, a control image that was scaled. Throws
   * UserError for every value that cannot be used, before anything is computed, and for a component that returns NaN or
   * infinity.
   */
  async *generate(
    request: GenerateRequest,
    onNotice: (notice: string) => void = () => {},
  ): AsyncGenerator<Step, GeneratedImage, void> {
    const settings = this.resolve(request);
    const { height, width } = this.model.manifest.model;
    const prepared = controlImages(request).map((image) => prepareImage(image, height, width));
    const inpainting = prepareInpainting(request.image, request.maskImage, this.model.manifest);
    for (const notice of [...prepared.flatMap(({ notices }) => notices), ...(inpainting?.notices ?? [])])
      onNotice(notice);
    const held: OnDevice[] = [];
    try {
      const contexts = await this.encodePrompts(settings, onNotice);
      held.push(...contexts);
      const extraChannels = inpainting ? [inpainting.mask, await this.encodeMaskedImage(inpainting)] : [];
      const pixels = prepared.map((image) => image.pixels);
      const controls = await this.embedControls(settings, pixels);
      held.push(...controls.map(({ embedding }) => embedding));
      let x = this.initialLatents(settings);
      for await (const step of this.denoise(settings, { contexts, controls, extraChannels }, x)) {
        x = step.x;
        yield step;
      }
      return { ...(await this.decode(x, settings)), settings, metadata: this.describe(settings) };
    } finally {
      for (const value of held) value.dispose();
    }
  }

  /** Fill in the bundle's defaults and check every option. Throws UserError for a value that cannot be used. */
  resolve(request: GenerateRequest): Settings {
    return resolve(request, this.model.manifest, this.model.tables);
  }

  /** The prompt's context, with guidance the negative prompt's before it. */
  async encodePrompts(settings: Settings, onNotice: (notice: string) => void): Promise<Context[]> {
    const names = settings.guidanceScale > 1 ? (["negativePrompt", "prompt"] as const) : (["prompt"] as const);
    const { tokenizer, components, manifest } = this.model;
    const prompts = names.map((name) => {
      const prompt = tokenizePrompt(settings[name], tokenizer, MAX_CHUNKS, settings.promptSyntax, words(name));
      const tokens = manifest.tokenizer.max_length;
      if (prompt.cutText)
        onNotice(`${words(name)}: longer than ${tokens} tokens, this end was cut: “${prompt.cutText}”`);
      return prompt;
    });
    const contexts: Context[] = [];
    try {
      for (const [i, prompt] of padChunks(prompts, tokenizer).entries()) {
        contexts.push(await encodePrompt(components, prompt, settings.clipSkip, words(names[i])));
      }
      return contexts;
    } catch (error) {
      for (const context of contexts) context.dispose();
      throw error;
    }
  }

  /** Embed the control images, float32 [1, 3, H, W] in 0..1, each by its ControlNet. */
  async embedControls(settings: Settings, controlImages: readonly FloatArray[]): Promise<Control[]> {
    const { manifest, components } = this.model;
    const controls: Control[] = [];
    try {
      for (const unit of controlUnits(settings, manifest.controlnets, residualSpecs(manifest).length)) {
        const embedding = await components.controlEmbedding(controlImages[controls.length], unit.controlnet);
        controls.push({ unit, embedding });
      }
      return controls;
    } catch (error) {
      for (const { embedding } of controls) embedding.dispose();
      throw error;
    }
  }

  /**
   * The latents of the part that the model keeps: float32 [1, C, h, w].
   *
   * They are the mode of the VAE's posterior. diffusers samples from the posterior instead; here the seed determines nothing
   * but the noise.
   */
  async encodeMaskedImage(inpainting: Inpainting): Promise<FloatArray> {
    const moments = await this.model.components.vaeEncoder(inpainting.maskedImage); // [1, 2 C, h, w]
    checkFinite("vae_encoder", moments, "before step 1");
    return moments.slice(0, moments.length / 2).map((mean) => mean * this.model.manifest.model.scaling_factor);
  }

  /** The seed's noise times the sampler's first standard deviation: float32 [1, C, h, w]. */
  initialLatents(settings: Settings): FloatArray {
    const { latent_channels, height, width, vae_scale_factor } = this.model.manifest.model;
    const count = latent_channels * (height / vae_scale_factor) * (width / vae_scale_factor);
    const { initNoiseSigma } = this.table(settings);
    return standardNormal(count, settings.seed).map((normal) => normal * initNoiseSigma);
  }

  /** The denoising loop. It yields after every step, so progress, preview and cancelling belong to the caller. */
  async *denoise(settings: Settings, conditions: Conditions, x: FloatArray): AsyncGenerator<Step, void, void> {
    const { rows } = this.table(settings);
    let previousX0: FloatArray = new Float32Array(x.length);
    let zeros: Promise<Residuals> | undefined; // made once per picture, if a step needs them
    const zeroResiduals = () => (zeros ??= this.model.components.zeroResiduals());
    try {
      for (const [index, row] of rows.entries()) {
        const scaledX = x.map((value) => value * row.modelInputScale);
        const active = conditions.controls.filter(({ unit }) => isActive(unit, index, rows.length));
        const residuals = await this.control(scaledX, row.timestep, conditions.contexts, active, zeroResiduals);
        let outputs: FloatArray[];
        try {
          outputs = await this.predict(scaledX, row.timestep, conditions, residuals.all);
          await checkOutputs(conditions, residuals.all, outputs, `step ${index + 1} of ${rows.length}`);
        } finally {
          for (const value of residuals.made) value.dispose();
        }
        const m = guide(outputs, settings.guidanceScale);
        const [next, x0] = advance(row, x, m, previousX0);
        x = next;
        previousX0 = x0;
        const preview = () => previewLatents(x0, this.model.manifest);
        yield { index, count: rows.length, timestep: row.timestep, x: next, x0, preview };
      }
    } finally {
      (await zeros)?.dispose();
    }
  }

  /** Latents float32 [1, C, h, w] -> picture. */
  async decode(x: FloatArray, settings: Settings): Promise<Image> {
    const { height, width } = this.model.manifest.model;
    const image = await this.model.components.vaeDecoder(x); // [1, 3, H, W]
    checkFinite("vae_decoder", image, `after ${settings.numInferenceSteps} steps`);
    return toPicture(
      image.map((value) => value / 2 + 0.5),
      height,
      width,
    );
  }

  /** The metadata of the PNG file: everything that is needed to make the picture again, apart from its inputs. */
  describe(settings: Settings): Record<string, string> {
    const identity = { model: this.model.manifest.model.name, bundle_sha256: this.model.bundleSha256 };
    return { ...toMetadata(settings), ...identity };
  }

  /**
   * The residuals for each context: the sum of those ControlNets that affect it, or zeros. The caller disposes those that
   * were made for this step.
   */
  private async control(
    scaledX: FloatArray,
    timestep: number,
    contexts: readonly Context[],
    active: readonly Control[],
    zeroResiduals: () => Promise<Residuals>,
  ): Promise<{ all: readonly Residuals[]; made: readonly Residuals[] }> {
    const all: Residuals[] = [];
    const made: Residuals[] = [];
    try {
      for (const [i, context] of contexts.entries()) {
        const isNegative = i < contexts.length - 1;
        const calls = active
          .filter((control) => affects(control, isNegative))
          .map(({ embedding, unit }) => {
            return () => this.model.components.controlnet(scaledX, timestep, context, embedding, unit.residualScales);
          });
        const sum = await this.sum(calls);
        if (sum !== undefined) made.push(sum);
        all.push(sum ?? (await zeroResiduals()));
      }
      return { all, made };
    } catch (error) {
      for (const value of made) value.dispose();
      throw error;
    }
  }

  /** Add residuals; undefined if there are none. At most two sets are on the device at a time, and their sum. */
  private async sum(residuals: readonly (() => Promise<Residuals>)[]): Promise<Residuals | undefined> {
    const held: Residuals[] = [];
    try {
      for (const make of residuals) {
        held.push(await make());
        if (held.length < 2) continue;
        const [total, one] = held;
        held.push(await this.model.components.residualSum(total, one));
        for (const added of held.splice(0, 2)) added.dispose();
      }
      return held[0];
    } catch (error) {
      for (const value of held) value.dispose();
      throw error;
    }
  }

  /** The UNet's output for each context: float32 [1, C, h, w]. */
  private predict(
    scaledX: FloatArray,
    timestep: number,
    { contexts, extraChannels }: Conditions,
    residuals: readonly Residuals[],
  ): Promise<FloatArray[]> {
    const sample = concatenate([scaledX, ...extraChannels]);
    // All calls are queued before the first result is awaited, so that the device does not idle between them.
    return Promise.all(
      contexts.map((context, i) => this.model.components.unet(sample, timestep, context, residuals[i])),
    );
  }

  private table(settings: Settings): SamplerTable {
    return pickTable(this.model.tables, settings.sampler, settings.numInferenceSteps);
  }
}

/** Classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m. */
export function guide(outputs: readonly FloatArray[], guidanceScale: number): Float64Array {
  if (outputs.length === 1) return Float64Array.from(outputs[0]);
  const [negative, positive] = outputs;
  return Float64Array.from(negative, (m, i) => m + guidanceScale * (positive[i] - m));
}

/** One step of the sampler: the next x and this step's x0. It computes in float64 and stores float32. */
export function advance(
  row: SamplerRow,
  x: FloatArray,
  m: Float64Array,
  previousX0: FloatArray,
): [x: FloatArray, x0: FloatArray] {
  const x0 = x.map((value, i) => row.x0Sample * value + row.x0Output * m[i]);
  const next = x.map((value, i) => row.nextSample * value + row.nextX0 * x0[i] + row.nextPreviousX0 * previousX0[i]);
  return [next, x0];
}

/** [3, H, W] in 0..1, clipped -> RGBA of 8 bits. */
export function toPicture(rgb: ArrayLike<number>, height: number, width: number): Image {
  const data = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let i = 0; i < height * width; i++) {
    for (let color = 0; color < 3; color++) data[4 * i + color] = 255 * rgb[color * height * width + i]; // rounds, clips
  }
  return { width, height, data };
}

/** One pixel per latent cell: rgb (0..1) = weight @ x0 + bias. */
function previewLatents(x0: FloatArray, { model, latent_preview }: Manifest): Image {
  const [height, width] = [model.height / model.vae_scale_factor, model.width / model.vae_scale_factor];
  return toPicture(colorLatents(x0, height * width, latent_preview), height, width);
}

/** [C, h w] -> [3, h w] */
function colorLatents(x0: FloatArray, cells: number, { weight, bias }: LatentPreview): Float32Array {
  const rgb = new Float32Array(3 * cells);
  for (let color = 0; color < 3; color++) {
    for (let cell = 0; cell < cells; cell++) {
      rgb[color * cells + cell] = weight[color].reduce((sum, w, c) => sum + w * x0[c * cells + cell], bias[color]);
    }
  }
  return rgb;
}

function concatenate(parts: readonly FloatArray[]): FloatArray {
  const whole = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** Throws UserError if an output is not finite. The error names the first component that returned such numbers. */
async function checkOutputs(
  { contexts, controls }: Conditions,
  residuals: readonly Residuals[],
  outputs: readonly FloatArray[],
  where: string,
): Promise<void> {
  for (const [i, output] of outputs.entries()) {
    if (output.every(Number.isFinite)) continue;
    // The inputs are copied to the host only now: to read them in every step would cost time.
    for (const values of await contexts[i].read()) checkFinite("text_encoder", values, where);
    for (const { embedding } of controls) {
      for (const values of await embedding.read()) checkFinite(embedding.controlnet.control_embedding, values, where);
    }
    const summed = controls.map(({ unit }) => unit.controlnet.controlnet).join(" + ");
    for (const values of await residuals[i].read()) checkFinite(summed, values, where);
    checkFinite("unet", output, where);
  }
}

function checkFinite(component: string, values: FloatArray, where: string): void {
  const broken = values.reduce((count, value) => count + Number(!Number.isFinite(value)), 0);
  if (broken) {
    throw new UserError(
      `${component}, ${where}`,
      `NaN or infinity in ${broken} of ${values.length} numbers`,
      "finite numbers",
      "try another seed; if the error remains, verify the bundle with python -m mlc_controlnet verify, " +
        "or use its float32 library",
    );
  }
}

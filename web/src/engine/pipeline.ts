/**
 * Prompt + control image + seed -> picture; of an inpainting model, a picture of which a part is repainted.
 *
 * Twin: mlc_controlnet/runtime/pipeline.py, the same functions in the same order.
 */

import type {
  ComponentName,
  Components,
  Context,
  ControlEmbedding,
  FloatArray,
  OnDevice,
  Residuals,
} from "./components.ts";
import { type Image, prepareControlImage } from "./control_image.ts";
import { UserError } from "./errors.ts";
import { type Inpainting, prepareInpainting } from "./inpainting.ts";
import { checkRequest } from "./known_keys.ts";
import type { LatentPreview, Manifest } from "./manifest.ts";
import { checkSeed, standardNormal } from "./noise.ts";
import { pickTable, type SamplerRow, type SamplerTable, type SamplerTables } from "./sampler.ts";
import type { PromptTokenizer } from "./tokenizer.ts";

/** A call's arguments; what is left out comes from the bundle's defaults. */
export interface GenerateRequest {
  readonly prompt: string;
  /** The picture that conditions: for the bundled model a white outline on black. */
  readonly controlImage: Image;
  /** Of an inpainting model: the picture to repaint. What is kept of it goes through the VAE: close to it, not equal. */
  readonly image?: Image;
  /** Likewise: white where it is to be repainted. */
  readonly maskImage?: Image;
  /** What the picture should not be; read where guidanceScale is over 1. Default: "". */
  readonly negativePrompt?: string;
  /** Denoising steps. */
  readonly steps?: number;
  /** How much the prompt counts; 1 or less switches guidance off and halves the time. */
  readonly guidanceScale?: number;
  /** How much the control image counts; 0 ignores it. */
  readonly conditioningScale?: number;
  /** The share of the steps, 0 to 1, before which the control image counts for nothing. Default: 0. */
  readonly controlGuidanceStart?: number;
  /** Likewise after which. Default: 1. The ControlNet does not run where it counts for nothing: such a step is faster. */
  readonly controlGuidanceEnd?: number;
  /** 0 to 2^53 - 1; drawn at random where left out, see `settings.seed` of the picture. */
  readonly seed?: number;
  /** One of the bundle's samplers: ddim, euler, dpmpp_2m. */
  readonly sampler?: string;
}

/** Everything that decides a picture beside the pictures given and the bundle; no field is left open. */
export interface Settings {
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly seed: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly conditioningScale: number;
  readonly controlGuidanceStart: number;
  readonly controlGuidanceEnd: number;
  readonly sampler: string;
}

/** What is known after one step of the denoising loop. */
export interface Step {
  /** 0 .. count - 1 */
  readonly index: number;
  readonly count: number;
  readonly timestep: number;
  /** float32 [1, C, h, w]: the sample after this step. */
  readonly x: FloatArray;
  /** float32 [1, C, h, w]: the finished latents as this step foresees them. */
  readonly x0: FloatArray;
  /** x0 as a small picture, w x h, one pixel a latent cell; made when it is asked for, without the VAE. */
  preview(): Image;
}

/** A picture and what made it. */
export interface GeneratedImage extends Image {
  readonly settings: Settings;
  /** For a PNG file. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** What a pipeline works with: a bundle's data, and its components on a device. */
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
   * Draw one picture: yields after every step, so progress, preview and cancelling belong to the caller, and returns the
   * picture. A loop that is left early frees what it holds.
   *
   * `onNotice` hears what the user should know: a prompt that was cut, a control image that was scaled. Throws UserError for
   * every argument that can not be used, before anything is computed, and for a component that returns NaN or infinity.
   */
  async *generate(
    request: GenerateRequest,
    onNotice: (notice: string) => void = () => {},
  ): AsyncGenerator<Step, GeneratedImage, void> {
    const settings = this.resolve(request);
    const { height, width } = this.model.manifest.model;
    const prepared = prepareControlImage(request.controlImage, height, width);
    const inpainting = prepareInpainting(request.image, request.maskImage, this.model.manifest);
    for (const notice of [...prepared.notices, ...(inpainting?.notices ?? [])]) onNotice(notice);
    const held: OnDevice[] = [];
    try {
      const contexts = await this.encodePrompts(settings, onNotice);
      held.push(...contexts);
      const beside = inpainting && [inpainting.mask, await this.encodeMaskedImage(inpainting)];
      const control = await this.model.components.controlEmbedding(prepared.pixels);
      held.push(control);
      let x = this.initialLatents(settings);
      for await (const step of this.denoise(settings, control, contexts, x, beside)) {
        x = step.x;
        yield step;
      }
      return { ...(await this.decode(x, settings)), settings, metadata: this.describe(settings) };
    } finally {
      for (const value of held) value.dispose();
    }
  }

  /** Put the bundle's defaults in place of what was left out and check every value. Throws UserError for what can not be. */
  resolve(request: GenerateRequest): Settings {
    checkRequest(request);
    const { defaults, samplers } = this.model.manifest;
    const settings: Settings = {
      prompt: request.prompt,
      negativePrompt: request.negativePrompt ?? "",
      seed: request.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
      steps: request.steps ?? defaults.steps,
      guidanceScale: finite(request.guidanceScale ?? defaults.guidance_scale, "guidance scale"),
      conditioningScale: finite(request.conditioningScale ?? defaults.conditioning_scale, "conditioning scale"),
      controlGuidanceStart: finite(request.controlGuidanceStart ?? 0, "control guidance start"),
      controlGuidanceEnd: finite(request.controlGuidanceEnd ?? 1, "control guidance end"),
      sampler: request.sampler ?? samplers.default,
    };
    if (typeof settings.prompt !== "string") {
      throw new UserError("prompt", String(settings.prompt), "a text", 'pass a string; "" draws without a prompt');
    }
    checkSeed(settings.seed);
    checkInterval(settings.controlGuidanceStart, settings.controlGuidanceEnd);
    this.table(settings);
    return settings;
  }

  /** The prompt's context and, where guidance asks for it, before it the negative prompt's. */
  async encodePrompts(settings: Settings, onNotice: (notice: string) => void): Promise<Context[]> {
    const texts: [name: string, text: string][] = [["prompt", settings.prompt]];
    if (settings.guidanceScale > 1) texts.unshift(["negative prompt", settings.negativePrompt]);
    const tokenized = texts.map(([name, text]) => {
      const { tokenIds, cutText } = this.model.tokenizer.encode(text);
      const tokens = this.model.manifest.tokenizer.max_length;
      if (cutText) onNotice(`${name}: longer than ${tokens} tokens, this end was cut: “${cutText}”`);
      return tokenIds;
    });
    return Promise.all(tokenized.map((tokenIds) => this.model.components.textEncoder(tokenIds)));
  }

  /**
   * The latents of what is not repainted: float32 [1, C, h, w].
   *
   * They are the mode of the VAE's posterior, which diffusers draws a sample from: the seed decides the noise alone.
   */
  async encodeMaskedImage(inpainting: Inpainting): Promise<FloatArray> {
    const moments = await this.model.components.vaeEncoder(inpainting.maskedImage); // [1, 2 C, h, w]
    checkFinite("vae_encoder", moments, "before step 1");
    return moments.slice(0, moments.length / 2).map((mean) => mean * this.model.manifest.model.scaling_factor);
  }

  /** Noise of the seed times the sampler's first deviation: float32 [1, C, h, w]. */
  initialLatents(settings: Settings): FloatArray {
    const { latent_channels, height, width, vae_scale_factor } = this.model.manifest.model;
    const count = latent_channels * (height / vae_scale_factor) * (width / vae_scale_factor);
    const { initNoiseSigma } = this.table(settings);
    return standardNormal(count, settings.seed).map((normal) => normal * initNoiseSigma);
  }

  /** The denoising loop. `beside`: the further channels of an inpainting UNet's sample, float32 [1, _, h, w] each. */
  async *denoise(
    settings: Settings,
    control: ControlEmbedding,
    contexts: readonly Context[],
    x: FloatArray,
    beside: readonly FloatArray[] = [],
  ): AsyncGenerator<Step, void, void> {
    const { rows } = this.table(settings);
    let previousX0: FloatArray = new Float32Array(x.length);
    let unsteered: Residuals | undefined; // made once, when a step wants it
    try {
      for (const [index, row] of rows.entries()) {
        const where = `step ${index + 1} of ${rows.length}`;
        const scale = scaleAt(settings, index);
        const free = this.freeContexts(contexts.length, scale);
        if (free > 0) unsteered ??= await this.model.components.zeroResiduals();
        const leftAlone = unsteered === undefined ? [] : Array<Residuals>(free).fill(unsteered);
        const scaledX = x.map((value) => value * row.modelInputScale);
        const outputs = await this.predict(scaledX, row.timestep, contexts, control, beside, scale, leftAlone, where);
        const m = guide(outputs, settings.guidanceScale);
        const [next, x0] = advance(row, x, m, previousX0);
        x = next;
        previousX0 = x0;
        const preview = () => previewLatents(x0, this.model.manifest);
        yield { index, count: rows.length, timestep: row.timestep, x: next, x0, preview };
      }
    } finally {
      unsteered?.dispose();
    }
  }

  /** Latents float32 [1, C, h, w] -> picture. */
  async decode(x: FloatArray, settings: Settings): Promise<Image> {
    const { height, width } = this.model.manifest.model;
    const image = await this.model.components.vaeDecoder(x); // [1, 3, H, W]
    checkFinite("vae_decoder", image, `after ${settings.steps} steps`);
    return toPicture(
      image.map((value) => value / 2 + 0.5),
      height,
      width,
    );
  }

  /** What a PNG file says about how it was made. */
  describe(settings: Settings): Record<string, string> {
    return {
      prompt: settings.prompt,
      negative_prompt: settings.negativePrompt,
      seed: String(settings.seed),
      steps: String(settings.steps),
      guidance_scale: pythonFloat(settings.guidanceScale),
      conditioning_scale: pythonFloat(settings.conditioningScale),
      control_guidance_start: pythonFloat(settings.controlGuidanceStart),
      control_guidance_end: pythonFloat(settings.controlGuidanceEnd),
      sampler: settings.sampler,
      model: this.model.manifest.model.name,
      bundle_sha256: this.model.bundleSha256,
    };
  }

  /**
   * The UNet's output under control, for each context: float32 [1, C, h, w]. `leftAlone`: the residuals of the first
   * contexts, for which the ControlNet does not run.
   */
  private async predict(
    scaledX: FloatArray,
    timestep: number,
    contexts: readonly Context[],
    control: ControlEmbedding,
    beside: readonly FloatArray[],
    scale: number,
    leftAlone: readonly Residuals[],
    where: string,
  ): Promise<FloatArray[]> {
    const { components } = this.model;
    const made: Residuals[] = [];
    try {
      // The ControlNet for every context, then the UNet: where their weights take turns on the device, one turn a step.
      for (const context of contexts.slice(leftAlone.length)) {
        made.push(await components.controlnet(scaledX, timestep, context, control, scale));
      }
      const residuals = [...leftAlone, ...made];
      const sample = concatenate([scaledX, ...beside]);
      // All are queued before one is waited for: the device never idles between them.
      const outputs = await Promise.all(
        contexts.map((context, i) => components.unet(sample, timestep, context, residuals[i])),
      );
      for (const [i, output] of outputs.entries()) {
        if (output.every(Number.isFinite)) continue;
        // Look back only now: reading the residuals of every step would cost time.
        for (const values of await contexts[i].read()) checkFinite("text_encoder", values, where);
        for (const values of await control.read()) checkFinite("control_embedding", values, where);
        for (const values of await residuals[i].read()) checkFinite("controlnet", values, where);
        checkFinite("unet", output, where);
      }
      return outputs;
    } finally {
      for (const value of made) value.dispose();
    }
  }

  /** How many, from the first, the ControlNet leaves alone. */
  private freeContexts(contexts: number, scale: number): number {
    if (scale === 0) return contexts;
    // As in diffusers, a ControlNet that pools its residuals is for the prompt alone.
    return this.model.manifest.model.global_pool_conditions ? contexts - 1 : 0;
  }

  private table(settings: Settings): SamplerTable {
    return pickTable(this.model.tables, settings.sampler, settings.steps);
  }
}

/** The conditioning scale of step `index`: 0 before and after the share of the steps that is steered. */
export function scaleAt(settings: Settings, index: number): number {
  const [begins, ends] = [index / settings.steps, (index + 1) / settings.steps];
  const isSteered = begins >= settings.controlGuidanceStart && ends <= settings.controlGuidanceEnd;
  return isSteered ? settings.conditioningScale : 0;
}

/** Classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m. */
export function guide(outputs: readonly FloatArray[], guidanceScale: number): Float64Array {
  if (outputs.length === 1) return Float64Array.from(outputs[0]);
  const [negative, positive] = outputs;
  return Float64Array.from(negative, (m, i) => m + guidanceScale * (positive[i] - m));
}

/** One step of the sampler: the next x and this step's x0. Computed in float64, kept in float32, as in the twin. */
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

/** One pixel a latent cell: rgb (0..1) = weight @ x0 + bias. */
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

/** 2 as Python writes the float: 2.0. */
function pythonFloat(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

function finite(value: number, subject: string): number {
  if (!Number.isFinite(value)) throw new UserError(subject, String(value), "a finite number", "choose another number");
  return value;
}

function checkInterval(start: number, end: number): void {
  if (0 <= start && start < end && end <= 1) return;
  const got = `from ${pythonFloat(start)} to ${pythonFloat(end)}`;
  throw new UserError("control guidance", got, "0 <= start < end <= 1", "leave both out to steer every step");
}

function checkFinite(component: ComponentName, values: FloatArray, where: string): void {
  const broken = values.reduce((count, value) => count + Number(!Number.isFinite(value)), 0);
  if (broken) {
    throw new UserError(
      `${component}, ${where}`,
      `NaN or infinity in ${broken} of ${values.length} numbers`,
      "finite numbers",
      "try another seed; if it stays, verify the bundle with python -m mlc_controlnet verify, or use its float32 library",
    );
  }
}

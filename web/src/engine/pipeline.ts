/**
 * Draw pictures with a bundle: text encoder, denoising loop, decoder.
 *
 * Twin: mlc_controlnet/runtime/pipeline.py, the same functions in the same order.
 */

import { checkLike, numbered, type Pass } from "./call.ts";
import type { Components, Context, FloatArray, OnDevice } from "./components.ts";
import { prepareControlImage } from "./control_image.ts";
import { type Control, controlUnits } from "./controls.ts";
import type { Crop } from "./crop.ts";
import { addNoise, type Conditions, checkFinite, denoise, type Step, toPicture } from "./denoising.ts";
import { hiresSettings } from "./hires.ts";
import { type InitImage, type Inpainting, paste, prepareInitImage, prepareInpainting } from "./inpainting.ts";
import { checkLatents, type UpscaleMode, upscaleLatents } from "./latents.ts";
import type { Manifest } from "./manifest.ts";
import { maskLatents } from "./masked_content.ts";
import { toMetadata } from "./metadata.ts";
import { drawingComponents, inpaints, residuals } from "./model_traits.ts";
import { standardNormal } from "./noise.ts";
import type { NoticeListener } from "./notices.ts";
import { noticesOf } from "./option_pairs.ts";
import type { Image } from "./picture.ts";
import type { ControlImage } from "./prepare_image.ts";
import type { LoadOptions } from "./progress.ts";
import { encodePrompts, withTimeIds } from "./prompt_contexts.ts";
import { controlImages, type GenerateRequest, type Settings } from "./request.ts";
import { resolve, scheduleOf } from "./resolve.ts";
import type { SamplerDescriptions } from "./samplers/description.ts";
import type { Schedule } from "./samplers/row.ts";
import type { Size } from "./size.ts";
import { runAtAnySize } from "./tiles.ts";
import type { PromptTokenizer } from "./tokenizer.ts";
import { compiledSizes, forSize } from "./variant.ts";

/** A finished picture and how it was made. */
export interface GeneratedImage extends Image {
  /** float32 [1, C, h, w]: what the picture was decoded from. diffusers' output_type "latent". */
  readonly latents: FloatArray;
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
  /** One for each text encoder. */
  readonly tokenizers: readonly PromptTokenizer[];
  readonly samplers: SamplerDescriptions;
  readonly components: Components;
}

/** What a picture in the making reports, and the signal that ends its downloads. */
export interface PipelineCallbacks extends LoadOptions {
  /** Called with every change to the inputs: a prompt that was cut, a control image that was scaled. */
  readonly onNotice?: NoticeListener;
  /** Whether each step decodes what it predicts, if the bundle has a preview decoder. */
  readonly decodesPreviews?: boolean;
}

/** What a denoising loop starts from. */
export interface Start extends Pick<Conditions, "extraChannels" | "kept"> {
  /** float32 [1, C, h, w]: the first sample. */
  readonly x: FloatArray;
}

/** Draws pictures with one loaded bundle. */
export class ControlNetPipeline {
  constructor(private readonly model: Model) {}

  /**
   * Draw one picture. It yields after every step, so the caller can show progress, preview or cancel, and returns the
   * picture. Latents that the caller passes to `next` replace the step's. A loop that ends early frees what it holds.
   *
   * Throws UserError for every value that cannot be used, before anything is fetched or computed, and for a component that
   * returns NaN or infinity.
   */
  async *generate(
    request: GenerateRequest,
    { onNotice = () => {}, decodesPreviews = false, ...loading }: PipelineCallbacks = {},
  ): AsyncGenerator<Step, GeneratedImage, FloatArray | undefined> {
    const { components, samplers } = this.model;
    const settings = this.resolve(request);
    const manifest = forSize(this.model.manifest, settings);
    const schedule = scheduleOf(settings, samplers);
    const { maskBlur, paddingMaskCrop, maskedContent } = settings;
    const { image, maskImage } = request;
    const inpainting = prepareInpainting(image, maskImage, manifest, maskBlur, paddingMaskCrop, maskedContent);
    const init = inpainting === undefined ? prepareInitImage(request.image, manifest) : undefined;
    const prepared = prepareControls(settings, request, inpainting?.crop);
    const noise = this.initialNoise(settings, request.latents);
    const changed = [...prepared, ...(init ? [init] : []), ...(inpainting ? [inpainting] : [])];
    const unread = noticesOf(settings, request, manifest);
    for (const notice of [...unread, ...changed.flatMap(({ notices }) => notices)]) onNotice(notice.text, notice);
    const previews = decodesPreviews && "preview_decoder" in manifest.components;
    const needed = this.componentsOf(settings, request);
    await components.require(previews ? [...needed, "preview_decoder"] : needed, loading);

    const held: OnDevice[] = [];
    try {
      const contexts = await this.encodePrompts(settings, request, onNotice);
      held.push(...contexts);
      const controls = await this.embedControls(
        settings,
        prepared.map(({ pixels }) => pixels),
      );
      held.push(...controls.map(({ embedding }) => embedding));
      const { x: first, ...start } = await this.start(settings, schedule, noise, init, inpainting);
      const conditions = { contexts, controls, ...start };
      const larger = settings.hiresScale === null ? undefined : hiresSettings(settings);
      const before = schedule.rows.length;
      const count = before + (larger === undefined ? 0 : scheduleOf(larger, samplers).rows.length);
      let x = yield* numbered(this.run(settings, schedule, conditions, first, previews), 0, count);
      if (larger !== undefined) {
        x = yield* numbered(this.drawLarger(larger, request, contexts, x, settings, previews), before, count);
      }
      const drawn = await this.decode(x, larger ?? settings);
      const pasted = inpainting && (settings.applyOverlay || inpainting.crop) ? paste(drawn, inpainting) : drawn;
      return { ...pasted, latents: x, settings, metadata: this.describe(settings) };
    } finally {
      for (const value of held) value.dispose();
    }
  }

  /** Fill in the bundle's defaults and check every option. Throws UserError for a value that cannot be used. */
  resolve(request: GenerateRequest): Settings {
    return resolve(request, this.model.manifest, this.model.samplers);
  }

  /** List the components that a picture needs. */
  componentsOf({ controlnets, deepcacheInterval }: Settings, request: GenerateRequest): string[] {
    const { manifest } = this.model;
    const used = manifest.controlnets.filter(({ name }) => controlnets.includes(name));
    const encoder = request.image == null || request.image instanceof Float32Array ? [] : ["vae_encoder"];
    const components = used.flatMap(({ control_embedding, controlnet }) => [control_embedding, controlnet]);
    const shallow = deepcacheInterval > 1 ? ["unet_shallow"] : [];
    return [...new Set([...drawingComponents(manifest), ...components, ...encoder, ...shallow])];
  }

  /** The prompt's context, with guidance the negative prompt's before it. */
  async encodePrompts(settings: Settings, request: GenerateRequest, onNotice: NoticeListener): Promise<Context[]> {
    const { components, manifest, tokenizers } = this.model;
    return encodePrompts(components, manifest, tokenizers, settings, request, onNotice);
  }

  /** Embed the control images, float32 [1, 3, H, W] in 0..1, each by its ControlNet. */
  async embedControls(settings: Settings, controlImages: readonly FloatArray[]): Promise<Control[]> {
    const { manifest, components } = this.model;
    const controls: Control[] = [];
    try {
      for (const unit of controlUnits(settings, manifest.controlnets, residuals(manifest).length)) {
        const embedding = await components.controlEmbedding(controlImages[controls.length], unit.controlnet, settings);
        controls.push({ unit, embedding });
      }
      return controls;
    } catch (error) {
      for (const { embedding } of controls) embedding.dispose();
      throw error;
    }
  }

  /** The seed's or the caller's noise: float32 [1, C, h, w], standard normal. */
  initialNoise(settings: Settings, latents?: FloatArray): FloatArray {
    const manifest = forSize(this.model.manifest, settings);
    if (latents != null) return checkLatents("latents", latents, manifest, "draw them from a normal distribution");
    const { latent_channels, vae_scale_factor, height, width } = manifest.model;
    return standardNormal((latent_channels * height * width) / vae_scale_factor ** 2, settings.seed);
  }

  /**
   * The first sample, and what a picture or a mask adds to the conditions.
   *
   * From noise alone, the sample is noise of the sampler's first standard deviation. From a picture, it is the picture's
   * latents, noised for the first step that runs. Inpainting with strength 1 starts from noise alone.
   */
  async start(
    settings: Settings,
    schedule: Schedule,
    noise: FloatArray,
    init?: InitImage,
    inpainting?: Inpainting,
  ): Promise<Start> {
    const fromNoise = noise.map((normal) => normal * schedule.initNoiseSigma);
    const picture = init ?? inpainting;
    if (picture === undefined) return { x: fromNoise, extraChannels: [] };
    const startsFromNoise = inpainting !== undefined && settings.strength === 1;
    let extraChannels: FloatArray[] = [];
    if (inpainting !== undefined && inpaints(this.model.manifest)) {
      extraChannels = [inpainting.mask, await this.encodeImage(inpainting.maskedImage, settings)];
      if (startsFromNoise) return { x: fromNoise, extraChannels };
    }
    const encoded = init?.isLatent ? init.pixels : await this.encodeImage(picture.pixels, settings);
    const latents = inpainting ? maskLatents(encoded, noise, inpainting.mask, settings.maskedContent) : encoded;
    const [first] = schedule.rows;
    const x = first === undefined ? latents : addNoise(first, latents, noise);
    if (inpainting === undefined || extraChannels.length) return { x, extraChannels };
    return { x: startsFromNoise ? fromNoise : x, extraChannels, kept: { latents, noise, mask: inpainting.mask } };
  }

  /**
   * Take the second pass of hires fix: enlarge the latents x and draw from them. Yields and returns as `run` does.
   *
   * `larger` are the settings of this pass: see `hiresSettings`. The control images are fitted to its size anew. The last
   * arguments are the size of the first pass, and whether steps decode previews.
   */
  async *drawLarger(
    larger: Settings,
    request: GenerateRequest,
    contexts: readonly Context[],
    x: FloatArray,
    { height, width }: Size,
    decodesPreviews = false,
  ): Pass {
    const { manifest, samplers } = this.model;
    const schedule = scheduleOf(larger, samplers);
    const prepared = prepareControls(larger, request);
    const controls = await this.embedControls(
      larger,
      prepared.map(({ pixels }) => pixels),
    );
    try {
      const factor = manifest.model.vae_scale_factor;
      const from = { height: height / factor, width: width / factor };
      const to = { height: larger.height / factor, width: larger.width / factor };
      const noise = this.initialNoise(larger);
      const latents = upscaleLatents(x, from, to, larger.hiresUpscaler as UpscaleMode);
      const [first] = schedule.rows;
      const noised = first === undefined ? latents : addNoise(first, latents, noise);
      const sized = withTimeIds(contexts, larger, manifest);
      const conditions = { contexts: sized, controls, extraChannels: [] };
      return yield* this.run(larger, schedule, conditions, noised, decodesPreviews);
    } finally {
      for (const { embedding } of controls) embedding.dispose();
    }
  }

  /**
   * Encode a picture, float32 [1, 3, H, W] in -1..1, to latents: float32 [1, C, h, w].
   *
   * They are the mode of the VAE's posterior. diffusers samples from the posterior instead; here the seed determines nothing
   * but the noise.
   */
  async encodeImage(image: FloatArray, { height, width }: Size): Promise<FloatArray> {
    const { components, manifest } = this.model;
    const { latent_channels, vae_scale_factor, scaling_factor } = manifest.model;
    const sizes = compiledSizes(manifest, "vae_encoder");
    const encode = (part: FloatArray, tile: Size) => components.vaeEncoder(part, tile);
    // [1, 2 C, h, w]: moments; of a tiny autoencoder [1, C, h, w]
    const encoded = await runAtAnySize(encode, image, { height, width }, sizes, vae_scale_factor, 1);
    checkFinite("vae_encoder", encoded, "before step 1");
    const count = (latent_channels * height * width) / vae_scale_factor ** 2;
    return encoded.slice(0, count).map((mean) => mean * scaling_factor);
  }

  /** Latents float32 [1, C, h, w] -> picture. */
  async decode(x: FloatArray, settings: Settings): Promise<Image> {
    const { height, width } = settings;
    const { components, manifest } = this.model;
    const sizes = compiledSizes(manifest, "vae_decoder");
    const decode = (part: FloatArray, tile: Size) => components.vaeDecoder(part, tile);
    const image = await runAtAnySize(decode, x, settings, sizes, 1, manifest.model.vae_scale_factor); // [1, 3, H, W]
    checkFinite("vae_decoder", image, `after ${settings.numInferenceSteps} steps`);
    return toPicture(
      image.map((value) => value / 2 + 0.5),
      height,
      width,
    );
  }

  /** The metadata of the PNG file: everything that is needed to make the picture again, apart from its inputs. */
  describe(settings: Settings): Record<string, string> {
    return toMetadata(settings, this.model.manifest.model.name, this.model.bundleSha256);
  }

  /** Run the denoising loop to its end: it yields after every step and returns the last sample. */
  private async *run(
    settings: Settings,
    schedule: Schedule,
    conditions: Conditions,
    x: FloatArray,
    decodesPreviews: boolean,
  ): Pass {
    const { components, manifest } = this.model;
    let last = x;
    const steps = denoise(components, forSize(manifest, settings), settings, schedule, conditions, x, decodesPreviews);
    try {
      for (let step = await steps.next(); !step.done; ) {
        const replaced = yield step.value;
        last = replaced === undefined ? step.value.x : checkLike(step.value.x, replaced);
        step = await steps.next(replaced);
      }
      return last;
    } finally {
      await steps.return();
    }
  }
}

/** Fit the control images to the size of the drawing. */
function prepareControls({ height, width }: Settings, request: GenerateRequest, crop?: Crop): ControlImage[] {
  return controlImages(request).map((image) => prepareControlImage(image, height, width, crop));
}

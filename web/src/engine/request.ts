/**
 * The request for one picture: every option with its default and its check, declared once.
 *
 * To add an option, add it in Python, write `constants.ts` again, add a field to `Settings` and a line to `OPTIONS`, and use
 * it in the pipeline. The check of a request's
 * keys, the metadata of a PNG file and `resolve` go through the fields. Twin: mlc_controlnet/runtime/request.py, the same
 * names in snake_case.
 */

import type { FloatArray } from "./components.ts";
import { HIRES_STRENGTH, IMAGE_STRENGTH, MAX_SEED, OPTION_NAMES, UPSCALE_MODES } from "./constants.ts";
import { checkKeys } from "./known_keys.ts";
import type { UpscaleMode } from "./latents.ts";
import type { Manifest } from "./manifest.ts";
import {
  checkMaskBlur,
  checkMaskedContent,
  checkPaddingMaskCrop,
  checkStrength,
  type MaskedContent,
} from "./mask_options.ts";
import {
  type ControlMode,
  checkFlag,
  checkHiresScale,
  checkHiresSteps,
  checkInteger,
  checkMode,
  checkNames,
  checkNumber,
  checkNumbers,
  checkPair,
  checkSeed,
  checkShare,
  checkSyntax,
  checkText,
  checkUpscaler,
  type OneOrEach,
  oneOrEach,
  orNull,
  type Pair,
} from "./option_checks.ts";
import { separated } from "./option_text.ts";
import type { Image } from "./picture.ts";
import type { PromptSyntax } from "./prompt_syntax.ts";

/** The options of one picture, under diffusers' names. Together with the pictures and the bundle they determine the result. */
export interface Settings {
  /** Text that describes the picture. */
  readonly prompt: string;
  /** Text that the picture moves away from; has no effect if guidanceScale is 1 or less. Default: "". */
  readonly negativePrompt: string;
  /** Stable Diffusion XL: another prompt for the second text encoder. Default: null, the prompt. */
  readonly prompt2: string | null;
  /** Stable Diffusion XL: another negative prompt for the second text encoder. Default: null, the negative prompt. */
  readonly negativePrompt2: string | null;
  /** How to read the prompts: webui, with weights as in (word:1.2) and [word], or plain, where brackets are text. Default: webui. */
  readonly promptSyntax: PromptSyntax;
  /** Number of the text encoder's last layers to leave out; Stable Diffusion web UI counts one more. Default: 0. */
  readonly clipSkip: number;
  /** Integer from 0 to 2^53 - 1 that determines the noise. Default: random. */
  readonly seed: number;
  /** Number of denoising steps. Default: the bundle's. */
  readonly numInferenceSteps: number;
  /** Weight of the prompt; 1 or less switches guidance off and halves the time. Default: the bundle's. */
  readonly guidanceScale: number;
  /**
   * Share, 0 to 1, to which guidance keeps the contrast of the prompt's own prediction: 0.7 is usual for models that predict v
   * and begin at pure noise, which guidance overexposes. Default: 0.
   */
  readonly guidanceRescale: number;
  /**
   * Names of the ControlNets to use, in the order of the control images. Default: the first of the bundle, as many as
   * there are control images.
   */
  readonly controlnets: readonly string[];
  /** Weight of the control image; 0 switches the ControlNet off. Default: the bundle's. */
  readonly controlnetConditioningScale: OneOrEach<number>;
  /** Share of the steps, 0 to 1, after which the ControlNet starts. Default: 0. */
  readonly controlGuidanceStart: OneOrEach<number>;
  /** Share of the steps, 0 to 1, after which the ControlNet stops. Steps without the ControlNet are faster. Default: 1. */
  readonly controlGuidanceEnd: OneOrEach<number>;
  /** Which matters more: balanced, prompt or control. Default: balanced. */
  readonly controlMode: OneOrEach<ControlMode>;
  /**
   * Let the ControlNet recognise the control image without a prompt: weak in fine details, and without effect on the
   * negative prompt. Default: false.
   */
  readonly guessMode: boolean;
  /** One of the bundle's samplers, for example ddim, euler or dpmpp_2m. Default: the bundle's. */
  readonly sampler: string;
  /** Where the sampler puts its steps: leading, linspace, trailing, karras, exponential or beta. Default: null, the model's. */
  readonly scheduleType: string | null;
  /** Share of fresh noise in each step, 0 to 1, of the samplers ddim and tcd. Default: 0. */
  readonly eta: number;
  /** The steps' timesteps, from the noisiest, in place of numInferenceSteps. Default: null. */
  readonly timesteps: readonly number[] | null;
  /** The steps' noise levels, from the noisiest to the last, in place of numInferenceSteps. Default: null. */
  readonly sigmas: readonly number[] | null;
  /** Of the picture in pixels; with width one of the bundle's sizes. Default: that of its first size. */
  readonly height: number;
  /** Of the picture in pixels. Default: that of the bundle's first size. */
  readonly width: number;
  /**
   * Stable Diffusion XL: height and width that a training picture like this one had, in pixels. Default: null, height and
   * width.
   */
  readonly originalSize: Pair | null;
  /**
   * Stable Diffusion XL: from where that picture was cut out, vertical first. Default: null, 0 and 0, which puts the subject in
   * the middle.
   */
  readonly cropsCoordsTopLeft: Pair | null;
  /** Stable Diffusion XL: height and width that the model was trained on it at. Default: null, height and width. */
  readonly targetSize: Pair | null;
  /** originalSize, beside the negative prompt. Default: null, originalSize. */
  readonly negativeOriginalSize: Pair | null;
  /** cropsCoordsTopLeft, beside the negative prompt. Default: null, cropsCoordsTopLeft. */
  readonly negativeCropsCoordsTopLeft: Pair | null;
  /** targetSize, beside the negative prompt. Default: null, targetSize. */
  readonly negativeTargetSize: Pair | null;
  /**
   * Hires fix: draw once more at so many times the size, from the enlarged latents; the bundle must have that size.
   * Default: null, off.
   */
  readonly hiresScale: number | null;
  /** Hires fix: the share of its steps that run, 0 to 1; less stays nearer to the small picture. Default: 0.7. */
  readonly hiresStrength: number | null;
  /** Hires fix: number of denoising steps, of which hiresStrength run. Default: numInferenceSteps. */
  readonly hiresSteps: number | null;
  /** Hires fix: how latents are enlarged: bilinear, nearest, nearest-exact or bicubic. Default: bilinear. */
  readonly hiresUpscaler: UpscaleMode | null;
  /**
   * Of a bundle built with --deepcache: the distance of steps that compute the whole UNet, such as 2, 3 or 5; 1 computes it
   * in all. Default: 1.
   */
  readonly deepcacheInterval: number;
  /**
   * With an image: the share of the steps that run on the noised picture; 0 keeps it, 1 draws a new one. Default: 0.8; with a
   * mask 1.
   */
  readonly strength: number;
  /** Softness of the mask's edge in its pixels, 0 to 256. Default: 0. */
  readonly maskBlur: number;
  /**
   * Draw only the part around the mask, with so many pixels on each side, at the model's full size. Default: null, the whole
   * picture.
   */
  readonly paddingMaskCrop: number | null;
  /**
   * What a repainted part starts from, at a strength below 1: original, fill (the colours around it), latent noise or latent
   * nothing, as in Stable Diffusion web UI. Default: original.
   */
  readonly maskedContent: MaskedContent;
  /** true puts the picture's own pixels where the mask is black, false leaves what the VAE makes of them. Default: true. */
  readonly applyOverlay: boolean;
}

/** The pictures that the settings apply to, and numbers in place of noise and texts. */
export interface Pictures {
  /**
   * The picture that conditions: for the bundled model a white outline on black. With several ControlNets in use, a list
   * with one for each; with none, it is left out.
   */
  readonly controlImage?: OneOrEach<Image>;
  /** The picture to start from, or its latents, float32 [1, C, h, w]. An inpainting model needs a picture, and a mask. */
  readonly image?: Image | FloatArray;
  /** White where the model repaints `image`. The rest of the picture stays as it is. */
  readonly maskImage?: Image;
  /** float32 [1, C, h, w], standard normal, in place of the seed's noise. */
  readonly latents?: FloatArray;
  /** float32 [1, T, D], an encoded prompt in place of the text. */
  readonly promptEmbeds?: FloatArray;
  /** float32 [1, T, D], an encoded prompt in place of the negative prompt's text. */
  readonly negativePromptEmbeds?: FloatArray;
  /** Stable Diffusion XL: float32 [1, P], the pooled output that belongs to promptEmbeds. */
  readonly pooledPromptEmbeds?: FloatArray;
  /** Stable Diffusion XL: float32 [1, P], the pooled output that belongs to negativePromptEmbeds. */
  readonly negativePooledPromptEmbeds?: FloatArray;
}

/** Settings, of which any but the prompt may be left out, and pictures. */
export interface GenerateRequest extends Pictures, Pick<Settings, "prompt">, Partial<Omit<Settings, "prompt">> {}

/** The description of one field of `Settings`. */
export interface Option<T> {
  /** Takes the option's name in words and a value; returns the value, or throws UserError. */
  readonly check: (subject: string, value: unknown) => T;
  /** Computes the value of an option that the caller leaves out; undefined if the option is required. */
  readonly default?: (manifest: Manifest, request: GenerateRequest) => T;
}

/** The number of the first pass; null without hires fix. */
function defaultHiresSteps(manifest: Manifest, request: GenerateRequest): number | null {
  if (request.hiresScale == null) return null;
  return request.numInferenceSteps ?? manifest.defaults.steps;
}

/** The description of each option. */
export const OPTIONS: { readonly [K in keyof Settings]: Option<Settings[K]> } = {
  prompt: { check: checkText },
  negativePrompt: { check: checkText, default: () => "" },
  prompt2: { check: orNull(checkText), default: () => null },
  negativePrompt2: { check: orNull(checkText), default: () => null },
  promptSyntax: { check: checkSyntax, default: () => "webui" },
  clipSkip: { check: checkInteger, default: () => 0 },
  seed: { check: checkSeed, default: () => randomInteger(MAX_SEED) },
  numInferenceSteps: { check: checkInteger, default: ({ defaults }) => defaults.steps },
  guidanceScale: { check: checkNumber, default: ({ defaults }) => defaults.guidance_scale },
  guidanceRescale: { check: checkShare, default: () => 0 },
  controlnets: {
    check: checkNames,
    // Without an image the check of the images names them all.
    default: ({ controlnets }, request) =>
      controlnets.slice(0, controlImages(request).length || undefined).map(({ name }) => name),
  },
  controlnetConditioningScale: {
    check: oneOrEach(checkNumber),
    default: ({ defaults }) => defaults.conditioning_scale,
  },
  controlGuidanceStart: { check: oneOrEach(checkNumber), default: () => 0 },
  controlGuidanceEnd: { check: oneOrEach(checkNumber), default: () => 1 },
  controlMode: { check: oneOrEach(checkMode), default: () => "balanced" },
  guessMode: { check: checkFlag, default: () => false },
  sampler: { check: checkText, default: ({ samplers }) => samplers.default },
  scheduleType: { check: orNull(checkText), default: () => null },
  eta: { check: checkShare, default: () => 0 },
  timesteps: { check: checkNumbers, default: () => null },
  sigmas: { check: checkNumbers, default: () => null },
  height: { check: checkInteger, default: ({ model }) => model.height },
  width: { check: checkInteger, default: ({ model }) => model.width },
  originalSize: { check: checkPair, default: () => null },
  cropsCoordsTopLeft: { check: checkPair, default: () => null },
  targetSize: { check: checkPair, default: () => null },
  negativeOriginalSize: { check: checkPair, default: () => null },
  negativeCropsCoordsTopLeft: { check: checkPair, default: () => null },
  negativeTargetSize: { check: checkPair, default: () => null },
  hiresScale: { check: orNull(checkHiresScale), default: () => null },
  hiresStrength: {
    check: orNull(checkStrength),
    default: (_, { hiresScale }) => (hiresScale == null ? null : HIRES_STRENGTH),
  },
  hiresSteps: { check: orNull(checkHiresSteps), default: defaultHiresSteps },
  hiresUpscaler: {
    check: orNull(checkUpscaler),
    default: (_, { hiresScale }) => (hiresScale == null ? null : UPSCALE_MODES[0]),
  },
  deepcacheInterval: { check: checkInteger, default: () => 1 },
  strength: {
    check: checkStrength,
    default: (_, { image, maskImage }) => (image != null && maskImage == null ? IMAGE_STRENGTH : 1),
  },
  maskBlur: { check: checkMaskBlur, default: () => 0 },
  paddingMaskCrop: { check: checkPaddingMaskCrop, default: () => null },
  maskedContent: { check: checkMaskedContent, default: () => "original" },
  applyOverlay: { check: checkFlag, default: () => true },
};
const PICTURES: { readonly [K in keyof Required<Pictures>]: true } = {
  controlImage: true,
  image: true,
  maskImage: true,
  latents: true,
  promptEmbeds: true,
  negativePromptEmbeds: true,
  pooledPromptEmbeds: true,
  negativePooledPromptEmbeds: true,
};

/** The control images of a request, one for each ControlNet in use. */
export function controlImages({ controlImage }: Pictures): readonly Image[] {
  if (controlImage == null) return [];
  return Array.isArray(controlImage) ? controlImage : [controlImage as Image];
}

/** Throws UserError for a request with an unknown key, or that is not an object; `others` are keys besides the options. */
export function checkRequest(request: object, others: readonly string[] = []): void {
  checkKeys("request", request, [...OPTION_NAMES, ...Object.keys(PICTURES), ...others]);
}

/** Return the value of each of `count` ControlNets. */
export function perControlnet<T>(value: OneOrEach<T>, count: number): readonly T[] {
  return Array.isArray(value) ? value : Array<T>(count).fill(value as T);
}

/** The settings by name in snake_case: texts as they are, everything else as JSON. An option that is null is left out. */
export function toRecord(settings: Settings): Record<string, string> {
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  const names = OPTION_NAMES.filter((name) => settings[name] !== null);
  return Object.fromEntries(names.map((name) => [separated(name, "_"), text(settings[name])]));
}

/** Each integer from 0 to `largest`, MAX_SEED at most, with the same probability. */
export function randomInteger(largest: number): number {
  for (;;) {
    const [low, high] = crypto.getRandomValues(new Uint32Array(2));
    const drawn = (high % 2 ** 21) * 2 ** 32 + low; // 0 .. MAX_SEED
    if (drawn <= largest) return drawn;
  }
}

/**
 * The request for one picture: every option with its default and its check, declared once.
 *
 * To add an option, add it in Python, write `constants.ts` again, add a field to `Settings` and a line to `OPTIONS`, and use
 * it in the pipeline. The check of a request's
 * keys, the metadata of a PNG file and `resolve` go through the fields. Twin: mlc_controlnet/runtime/request.py, the same
 * names in snake_case.
 */

import { CONTROL_MODES, MAX_SEED, OPTION_NAMES } from "./constants.ts";
import { checkOneOf, UserError } from "./errors.ts";
import { checkKeys } from "./known_keys.ts";
import { type Manifest, textLayers } from "./manifest.ts";
import type { Image } from "./picture.ts";
import { PROMPT_SYNTAXES, type PromptSyntax, parsePrompt } from "./prompt_syntax.ts";
import { pickTable, type SamplerTables } from "./sampler.ts";

/** Which matters more, prompt or control image, as in Stable Diffusion web UI. */
export type ControlMode = (typeof CONTROL_MODES)[number];

/** One value for all ControlNets, or a list with a value for each in use. */
export type OneOrEach<T> = T | readonly T[];

/** The options of one picture, under diffusers' names. Together with the pictures and the bundle they determine the result. */
export interface Settings {
  /** Text that describes the picture. */
  readonly prompt: string;
  /** Text that the picture moves away from; has no effect if guidanceScale is 1 or less. Default: "". */
  readonly negativePrompt: string;
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
  /** Names of the ControlNets to use, in the order of the control images. Default: all of the bundle. */
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
}

/** The pictures that the settings apply to. */
export interface Pictures {
  /**
   * The picture that conditions: for the bundled model a white outline on black. With several ControlNets in use, a list
   * with one for each; with none, it is left out.
   */
  readonly controlImage?: OneOrEach<Image>;
  /** For an inpainting model: the picture to repaint. The part that is kept goes through the VAE: it is close, not equal. */
  readonly image?: Image;
  /** For an inpainting model: a picture that is white where the model repaints. */
  readonly maskImage?: Image;
}

/** Settings, of which any but the prompt may be left out, and pictures. */
export interface GenerateRequest extends Pictures, Pick<Settings, "prompt">, Partial<Omit<Settings, "prompt">> {}

/** The description of one field of `Settings`. */
interface Option<T> {
  /** Takes the option's name in words and a value; returns the value, or throws UserError. */
  readonly check: (subject: string, value: unknown) => T;
  /** Computes the value of an option that the caller leaves out; undefined if the option is required. */
  readonly default?: (manifest: Manifest, request: GenerateRequest) => T;
}

function checkText(subject: string, value: unknown): string {
  if (typeof value !== "string") {
    throw new UserError(subject, typeof value, "one string", "pass the text itself, one picture per call");
  }
  return value;
}

function checkInteger(subject: string, value: unknown): number {
  if (!Number.isInteger(value)) throw new UserError(subject, String(value), "an integer", "choose another number");
  return value as number;
}

function checkNumber(subject: string, value: unknown): number {
  if (!Number.isFinite(value)) throw new UserError(subject, String(value), "a finite number", "choose another number");
  return value as number;
}

function checkSeed(subject: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new UserError(subject, String(value), `an integer from 0 to ${MAX_SEED}`, "choose another seed");
  }
  return value as number;
}

function checkFlag(subject: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new UserError(subject, String(value), "true or false", "pass one of them");
  return value;
}

function checkMode(subject: string, value: unknown): ControlMode {
  checkOneOf(subject, value, CONTROL_MODES);
  return value as ControlMode;
}

function checkSyntax(subject: string, value: unknown): PromptSyntax {
  checkOneOf(subject, value, PROMPT_SYNTAXES);
  return value as PromptSyntax;
}

function checkNames(subject: string, value: unknown): readonly string[] {
  if (!Array.isArray(value)) {
    const got = typeof value === "string" ? `'${value}'` : String(value);
    throw new UserError(subject, got, "a list of names", "put the name into a list");
  }
  return value.map((name) => checkText(subject, name));
}

/** Return a check that takes one value for all ControlNets, or a list with a value for each. */
function oneOrEach<T>(
  check: (subject: string, value: unknown) => T,
): (subject: string, value: unknown) => OneOrEach<T> {
  return (subject, value) => (Array.isArray(value) ? value.map((item) => check(subject, item)) : check(subject, value));
}

const OPTIONS: { readonly [K in keyof Settings]: Option<Settings[K]> } = {
  prompt: { check: checkText },
  negativePrompt: { check: checkText, default: () => "" },
  promptSyntax: { check: checkSyntax, default: () => "webui" },
  clipSkip: { check: checkInteger, default: () => 0 },
  seed: { check: checkSeed, default: randomSeed },
  numInferenceSteps: { check: checkInteger, default: ({ defaults }) => defaults.steps },
  guidanceScale: { check: checkNumber, default: ({ defaults }) => defaults.guidance_scale },
  controlnets: { check: checkNames, default: ({ controlnets }) => controlnets.map(({ name }) => name) },
  controlnetConditioningScale: {
    check: oneOrEach(checkNumber),
    default: ({ defaults }) => defaults.conditioning_scale,
  },
  controlGuidanceStart: { check: oneOrEach(checkNumber), default: () => 0 },
  controlGuidanceEnd: { check: oneOrEach(checkNumber), default: () => 1 },
  controlMode: { check: oneOrEach(checkMode), default: () => "balanced" },
  guessMode: { check: checkFlag, default: () => false },
  sampler: { check: checkText, default: ({ samplers }) => samplers.default },
};
const PER_CONTROLNET = [
  "controlnetConditioningScale",
  "controlGuidanceStart",
  "controlGuidanceEnd",
  "controlMode",
] as const;
const PICTURES: { readonly [K in keyof Required<Pictures>]: true } = {
  controlImage: true,
  image: true,
  maskImage: true,
};

/** The control images of a request, one for each ControlNet in use. */
export function controlImages({ controlImage }: Pictures): readonly Image[] {
  if (controlImage == null) return [];
  return Array.isArray(controlImage) ? controlImage : [controlImage as Image];
}

/** Throws UserError for a request with an unknown key, or that is not an object. */
export function checkRequest(request: GenerateRequest): void {
  checkKeys("request", request, [...OPTION_NAMES, ...Object.keys(PICTURES)]);
}

/**
 * Fill in the defaults and check every option, alone and together.
 *
 * Throws UserError for the first value that cannot be used.
 */
export function resolve(request: GenerateRequest, manifest: Manifest, tables: SamplerTables): Settings {
  checkRequest(request);
  const values = OPTION_NAMES.map((name) => {
    const option: Option<unknown> = OPTIONS[name];
    return [name, option.check(words(name), request[name] ?? option.default?.(manifest, request))];
  });
  const settings: Settings = Object.fromEntries(values);
  if (settings.promptSyntax === "webui") {
    for (const name of ["prompt", "negativePrompt"] as const) parsePrompt(settings[name], words(name));
  }
  const layers = textLayers(manifest);
  if (settings.clipSkip < 0 || settings.clipSkip >= layers) {
    const wanted = `0 to ${layers - 1}: the text encoder has ${layers} layers`;
    throw new UserError("clip skip", String(settings.clipSkip), wanted, "choose another number");
  }
  checkControlnets(settings, request, manifest);
  pickTable(tables, settings.sampler, settings.numInferenceSteps);
  return settings;
}

function checkControlnets(settings: Settings, request: GenerateRequest, manifest: Manifest): void {
  const known = manifest.controlnets.map(({ name }) => name);
  const used = settings.controlnets;
  for (const name of used) checkOneOf("controlnets", name, known);
  if (new Set(used).size < used.length) {
    throw new UserError("controlnets", used.join(", "), "each name once", "leave the repeated ones out");
  }
  const images = controlImages(request).length;
  if (images !== used.length) {
    const each = `${used.length}, one for each ControlNet in use (${used.join(", ")})`;
    const remedy = `pass as many, or name the ControlNets to use in controlnets: ${known.join(", ")}`;
    const wanted = used.length ? each : "none: none is in use";
    throw new UserError("control image", images ? String(images) : "none", wanted, remedy);
  }
  for (const name of PER_CONTROLNET) {
    const value = settings[name];
    if (Array.isArray(value) && value.length !== used.length) {
      const wanted = `one value, or ${used.length}, one for each ControlNet in use`;
      throw new UserError(words(name), `${value.length} values`, wanted, "pass as many as control images");
    }
  }
  const starts = perControlNet(settings.controlGuidanceStart, used.length);
  const ends = perControlNet(settings.controlGuidanceEnd, used.length);
  for (const [i, start] of starts.entries()) {
    if (0 <= start && start < ends[i] && ends[i] <= 1) continue;
    const remedy = "leave both out to apply it in every step";
    throw new UserError("control guidance", `from ${start} to ${ends[i]}`, "0 <= start < end <= 1", remedy);
  }
}

/** Return the value of each of `count` ControlNets. */
export function perControlNet<T>(value: OneOrEach<T>, count: number): readonly T[] {
  return Array.isArray(value) ? value : Array<T>(count).fill(value as T);
}

/** The settings as text chunks of a PNG file, by name in snake_case: texts as they are, everything else as JSON. */
export function toMetadata(settings: Settings): Record<string, string> {
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return Object.fromEntries(OPTION_NAMES.map((name) => [separated(name, "_"), text(settings[name])]));
}

/** `guidanceScale` as error messages write it: guidance scale. */
export function words(name: string): string {
  return separated(name, " ");
}

function separated(name: string, separator: string): string {
  return name.replace(/[A-Z]/g, (letter) => separator + letter.toLowerCase());
}

/** Each integer from 0 to MAX_SEED with the same probability. */
function randomSeed(): number {
  const [low, high] = crypto.getRandomValues(new Uint32Array(2));
  return (high % 2 ** 21) * 2 ** 32 + low;
}

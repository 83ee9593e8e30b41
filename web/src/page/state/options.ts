/** The request's settings as options under the engine's names, and back: for links, presets, reloads and PNG files. */

import { batch } from "@preact/signals";
import { type Notice, OPTION_NAMES, optionWords, type RestoredSettings, type Settings } from "../../worker";
import { t } from "../text";
import type { ControlUnit } from "./control_unit";
import { notOffered } from "./offered";
import type { Studio } from "./studio";

export type Options = Partial<Settings>;

/** Says something in the page's language. */
type Sentence = () => string;

/** Options that the page has no fields for, with the values that they have anyway. */
const WITHOUT_FIELDS: Options = {
  prompt2: null,
  negativePrompt2: null,
  promptSyntax: "webui",
  clipSkip: 0,
  guessMode: false,
  scheduleType: null,
  eta: 0,
  timesteps: null,
  sigmas: null,
  hiresScale: null,
  hiresStrength: null,
  hiresSteps: null,
  hiresUpscaler: null,
  deepcacheInterval: 1,
  applyOverlay: true,
  originalSize: null,
  cropsCoordsTopLeft: null,
  targetSize: null,
  negativeOriginalSize: null,
  negativeCropsCoordsTopLeft: null,
  negativeTargetSize: null,
};

/** Read the options of the page. Those that are left to the bundle are missing. Reads signals: an effect follows them. */
export function optionsOf(studio: Studio): Options {
  const { request } = studio;
  const units = studio.controls.value.filter(({ enabled, controlnet }) => enabled.value && controlnet.value !== "");
  const mode = request.mode.value;
  const options: Record<string, unknown> = {
    ...request.others.value,
    prompt: request.prompt.value,
    negativePrompt: request.negativePrompt.value,
    sampler: request.sampler.value,
    numInferenceSteps: request.steps.value,
    guidanceScale: request.guidance.value,
    guidanceRescale: request.rescale.value,
    seed: request.seed.value,
    width: request.size.value.width,
    height: request.size.value.height,
    controlnets: units.map(({ controlnet }) => controlnet.value),
    controlnetConditioningScale: complete(units.map(({ weight }) => weight.value)),
    controlGuidanceStart: complete(units.map(({ start }) => start.value)),
    controlGuidanceEnd: complete(units.map(({ end }) => end.value)),
    controlMode: complete(units.map((unit) => unit.mode.value)),
    strength: mode === "txt2img" ? undefined : request.strength.value,
    maskBlur: request.maskBlur.value,
    maskedContent: request.maskedContent.value,
    paddingMaskCrop: request.onlyMasked.value ? request.maskPadding.value : undefined,
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value != null));
}

/** The options as texts by name, for an address: texts as they are, everything else as JSON. */
export function toTexts(options: Options): Record<string, string> {
  const names = OPTION_NAMES.filter((name) => options[name] != null);
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return Object.fromEntries(names.map((name) => [optionWords(name).replaceAll(" ", "_"), text(options[name])]));
}

/** Set the page to restored settings, of which nothing else is left, and tell what the bundle does not offer. */
export function restore(studio: Studio, { options, model, notices }: RestoredSettings): void {
  const { request, messages } = studio;
  const manifest = studio.manifest.peek();
  const told: (Notice | Sentence)[] = [...notices];
  batch(() => {
    request.others.value = {};
    request.rescale.value = 0; // of files without it
    told.push(...apply(studio, options));
  });
  if (model !== "" && manifest !== undefined && model !== manifest.model.name)
    told.push(() => t.value.otherModel(model));
  for (const notice of told) messages.notice(notice);
}

/** Set what a preset names, and nothing else. Tells what the bundle does not offer. */
export function usePreset(studio: Studio, options: Options): void {
  studio.messages.clear();
  for (const notice of batch(() => apply(studio, options))) studio.messages.notice(notice);
}

/** Set the page's fields to the options that are named; returns notices of what the bundle does not offer. */
function apply(studio: Studio, options: Options): Sentence[] {
  const { request } = studio;
  const told: Sentence[] = [];
  set(request.prompt, options.prompt);
  set(request.negativePrompt, options.negativePrompt);
  set(request.steps, options.numInferenceSteps);
  set(request.guidance, options.guidanceScale);
  set(request.rescale, options.guidanceRescale);
  set(request.seed, options.seed);
  if (options.strength !== undefined && options.strength < 1) request.strength.value = options.strength; // 1: of no photo
  set(request.maskBlur, options.maskBlur);
  set(request.maskedContent, options.maskedContent);
  if (options.paddingMaskCrop != null) {
    request.maskPadding.value = options.paddingMaskCrop;
    request.onlyMasked.value = true;
  } else if (options.strength !== undefined) request.onlyMasked.value = false;
  const samplers = studio.engine.peek()?.samplers;
  const { sampler } = options;
  if (sampler === undefined || samplers === undefined || samplers.includes(sampler)) set(request.sampler, sampler);
  else told.push(() => t.value.samplerMissing(sampler));
  const { width, height } = options;
  const isOffered = studio.sizes.peek().some((size) => size.width === width && size.height === height);
  if (width !== undefined && height !== undefined) {
    if (isOffered) studio.setSize({ width, height });
    else told.push(() => t.value.sizeMissing(`${width}×${height}`));
  }
  told.push(...restoreUnits(studio, options));
  const names = (Object.keys(WITHOUT_FIELDS) as (keyof Settings)[]).filter((name) => options[name] !== undefined);
  const others = { ...request.others.peek(), ...Object.fromEntries(names.map((name) => [name, options[name]])) };
  request.others.value = Object.fromEntries(
    Object.entries(others).filter(([name, value]) => value != null && value !== WITHOUT_FIELDS[name as keyof Settings]),
  );
  told.push(...leaveOutOthers(studio));
  return told;
}

/** Leave out options without a field that the bundle does not offer; returns a sentence that names them. */
export function leaveOutOthers(studio: Studio): Sentence[] {
  const { others } = studio.request;
  const manifest = studio.manifest.peek();
  const missing = manifest === undefined ? [] : notOffered(manifest, others.peek());
  if (missing.length === 0) return [];
  others.value = Object.fromEntries(
    Object.entries(others.peek()).filter(([name]) => !missing.includes(name as keyof Settings)),
  );
  return [() => t.value.optionsMissing(missing.map((name) => t.value.options[name]).join(", "))];
}

/** Give the units the values of restored ControlNets; returns notices of those that the bundle has not. */
function restoreUnits(studio: Studio, options: Options): Sentence[] {
  const { controlnets } = options;
  if (controlnets === undefined) return [];
  const unknown: Sentence[] = [];
  const used = new Set<ControlUnit>();
  for (const [i, name] of controlnets.entries()) {
    const unit = unitFor(studio, name);
    if (unit === undefined) {
      unknown.push(() => t.value.controlnetMissing(name));
      continue;
    }
    used.add(unit);
    unit.enabled.value = true;
    set(unit.weight, placed(options.controlnetConditioningScale, i));
    set(unit.start, placed(options.controlGuidanceStart, i));
    set(unit.end, placed(options.controlGuidanceEnd, i));
    set(unit.mode, placed(options.controlMode, i));
  }
  if (unknown.length === 0) for (const unit of studio.controls.peek()) unit.enabled.value = used.has(unit);
  return unknown;
}

/** The unit of a ControlNet; a new one if the bundle has it and no unit uses it. */
function unitFor(studio: Studio, name: string): ControlUnit | undefined {
  const find = () => studio.controls.peek().find(({ controlnet }) => controlnet.peek() === name);
  const entry = studio.manifest.peek()?.controlnets.find((controlnet) => controlnet.name === name);
  if (find() === undefined && entry !== undefined) studio.addControl(entry);
  return find();
}

function placed<T>(value: T | readonly T[] | undefined, place: number): T | undefined {
  return Array.isArray(value) ? value[place] : (value as T | undefined);
}

function complete<T>(values: readonly (T | undefined)[]): readonly T[] | undefined {
  return values.length === 0 || values.includes(undefined) ? undefined : (values as T[]);
}

function set<T>(target: { value: T | undefined }, value: T | undefined): void {
  if (value !== undefined) target.value = value;
}

/**
 * From a request to complete settings: defaults, and the checks of options together.
 *
 * Twin: mlc_controlnet/runtime/resolve.py.
 */

import { OPTION_NAMES } from "./constants.ts";
import { checkOneOf, UserError } from "./errors.ts";
import { checkHires, hiresSettings } from "./hires.ts";
import type { Manifest } from "./manifest.ts";
import { textLayers } from "./model_traits.ts";
import { checkPairs } from "./option_pairs.ts";
import { words } from "./option_text.ts";
import { parsePrompt } from "./prompt_syntax.ts";
import { Recent } from "./recent.ts";
import {
  checkRequest,
  controlImages,
  type GenerateRequest,
  OPTIONS,
  type Option,
  perControlnet,
  type Settings,
} from "./request.ts";
import type { SamplerDescriptions } from "./samplers/description.ts";
import type { Schedule } from "./samplers/row.ts";
import { buildSchedule } from "./samplers/schedule.ts";
import { checkXl } from "./time_ids.ts";
import { checkVariant } from "./variant_options.ts";

const PER_CONTROLNET = [
  "controlnetConditioningScale",
  "controlGuidanceStart",
  "controlGuidanceEnd",
  "controlMode",
] as const;

const KEPT_SCHEDULES = 8;
/** The checks and the drawing of one picture ask for the same schedule, and so does the next picture. */
const SCHEDULES = new WeakMap<SamplerDescriptions, Recent<string, Schedule>>();

/**
 * Fill in the defaults and check every option, alone and together.
 *
 * Throws UserError for the first value that cannot be used.
 */
export function resolve(request: GenerateRequest, manifest: Manifest, samplers: SamplerDescriptions): Settings {
  checkRequest(request);
  const values = OPTION_NAMES.map((name) => {
    const option: Option<unknown> = OPTIONS[name];
    return [name, option.check(words(name), request[name] ?? option.default?.(manifest, request))];
  });
  const settings: Settings = Object.fromEntries(values);
  if (settings.promptSyntax === "webui") {
    for (const name of ["prompt", "negativePrompt", "prompt2", "negativePrompt2"] as const) {
      parsePrompt(settings[name] ?? "", words(name));
    }
  }
  const layers = textLayers(manifest);
  if (settings.clipSkip < 0 || settings.clipSkip >= layers) {
    const wanted = `0 to ${layers - 1}: the text encoder has ${layers} layers`;
    throw new UserError("clip skip", String(settings.clipSkip), wanted, "choose another number");
  }
  checkControlnets(settings, request, manifest);
  checkVariant(settings, manifest);
  checkHires(settings, request, manifest);
  checkPairs(settings, request, manifest);
  checkXl(settings, request, manifest);
  scheduleOf(settings, samplers);
  if (settings.hiresScale !== null) scheduleOf(hiresSettings(settings), samplers);
  return settings;
}

/** Return the rows of the sampler that `settings` name. Throws UserError for what the sampler cannot do. */
export function scheduleOf(settings: Settings, samplers: SamplerDescriptions): Schedule {
  const { sampler, numInferenceSteps, timesteps, sigmas, scheduleType, eta, strength } = settings;
  const key = JSON.stringify([sampler, numInferenceSteps, timesteps, sigmas, scheduleType, eta, strength]);
  const made = SCHEDULES.get(samplers) ?? new Recent<string, Schedule>(KEPT_SCHEDULES);
  SCHEDULES.set(samplers, made);
  const known = made.get(key);
  if (known !== undefined) return known;
  const options = { timesteps, sigmas, scheduleType, eta, strength };
  const schedule = buildSchedule(samplers, sampler, numInferenceSteps, options);
  made.set(key, schedule);
  return schedule;
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
  const starts = perControlnet(settings.controlGuidanceStart, used.length);
  const ends = perControlnet(settings.controlGuidanceEnd, used.length);
  for (const [i, start] of starts.entries()) {
    if (0 <= start && start < ends[i] && ends[i] <= 1) continue;
    const remedy = "leave both out to apply it in every step";
    throw new UserError("control guidance", `from ${start} to ${ends[i]}`, "0 <= start < end <= 1", remedy);
  }
}

/**
 * Options that need or exclude one another: what would have no effect is refused, or told.
 *
 * Twin: mlc_controlnet/runtime/option_pairs.py.
 */

import { UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import { embedsGuidance, maxChunks } from "./model_traits.ts";
import { type Notice, noticeOf } from "./notices.ts";
import { words } from "./option_text.ts";
import type { GenerateRequest, Settings } from "./request.ts";
import { contextShape } from "./variant.ts";

/** Names and the values that mean nothing. */
type Without = readonly (readonly [keyof Settings, unknown])[];

const NEEDS_IMAGE: Without = [["strength", 1]];
const NEEDS_MASK: Without = [
  ["maskBlur", 0],
  ["paddingMaskCrop", null],
  ["maskedContent", "original"],
  ["applyOverlay", true],
];
const NEEDS_CONTROLNET: Without = [
  ["controlGuidanceStart", 0],
  ["controlGuidanceEnd", 1],
  ["controlMode", "balanced"],
  ["guessMode", false],
];
const ETA_SAMPLERS: readonly string[] = ["ddim", "tcd"];
const LEAVE_OUT = "pass both, or leave it out";

/** Throws UserError for an option without the one that it needs, or beside one that takes its place. */
export function checkPairs(settings: Settings, request: GenerateRequest, manifest: Manifest): void {
  checkPictures(settings, request);
  checkControls(settings);
  checkTexts(settings, request);
  checkEmbeds(request, manifest);
}

/** A notice for each option that diffusers accepts where it has no effect: eta, and those of guidance. */
export function noticesOf(settings: Settings, request: GenerateRequest, manifest: Manifest): Notice[] {
  const isUnread = settings.eta !== 0 && !ETA_SAMPLERS.includes(settings.sampler);
  const ofSampler = isUnread ? [noticeOf("no-effect", { subject: "eta", why: "sampler" })] : [];
  if (settings.guidanceScale > 1 && !embedsGuidance(manifest)) return ofSampler;
  const why = embedsGuidance(manifest) ? "guidance-embedded" : "guidance-off";
  const given = [
    ["guidanceRescale", settings.guidanceRescale !== 0],
    ["negativePrompt", settings.negativePrompt !== ""],
    ["negativePrompt2", Boolean(settings.negativePrompt2)],
    ["negativePromptEmbeds", request.negativePromptEmbeds != null],
    ["negativePooledPromptEmbeds", request.negativePooledPromptEmbeds != null],
  ] as const;
  const ofGuidance = given.filter(([, isGiven]) => isGiven);
  return [...ofSampler, ...ofGuidance.map(([name]) => noticeOf("no-effect", { subject: words(name), why }))];
}

function checkPictures(settings: Settings, { image, maskImage }: GenerateRequest): void {
  if (image == null) refuseAlone(settings, NEEDS_IMAGE, "an image", "an image to start from");
  if (maskImage == null) {
    refuseAlone(settings, NEEDS_MASK, "a mask image", "a picture and a mask that is white where it is repainted");
  }
  if (settings.maskedContent !== "original" && settings.strength === 1) {
    const wanted = "a strength below 1, for example 0.75: at 1 the drawing starts from noise alone";
    throw new UserError("masked content", `${settings.maskedContent} at strength 1`, wanted, LEAVE_OUT);
  }
  if (settings.paddingMaskCrop !== null && !settings.applyOverlay) {
    const wanted = "true: the part is pasted back into the picture";
    throw new UserError("apply overlay", "false beside a padding mask crop", wanted, "leave one of them out");
  }
}

function checkControls(settings: Settings): void {
  if (!settings.controlnets.length) {
    refuseAlone(settings, NEEDS_CONTROLNET, "a ControlNet in use", "a ControlNet and its control image");
  }
  for (const mode of [settings.controlMode].flat()) {
    if (!settings.guessMode || mode === "balanced") continue;
    const wanted = "balanced: guess mode has weights of its own";
    throw new UserError("control mode", `${mode} beside guess mode`, wanted, "leave one of them out");
  }
}

function refuseAlone(settings: Settings, options: Without, without: string, needed: string): void {
  for (const [name, nothing] of options) {
    const value = settings[name];
    if (value === nothing || (Array.isArray(value) && !value.length)) continue;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    throw new UserError(words(name), `${text} without ${without}`, `${needed} with it`, LEAVE_OUT);
  }
}

/** Refuse a text beside its encoding, as diffusers does, and what applies to texts if there is none. */
function checkTexts(settings: Settings, request: GenerateRequest): void {
  for (const name of ["prompt", "negativePrompt"] as const) {
    if (request[`${name}Embeds`] == null) continue;
    for (const text of [name, `${name}2`] as const) {
      if (!settings[text]) continue;
      const got = `a text beside ${words(name)} embeds`;
      throw new UserError(words(text), got, "one of them", "leave the text empty, or the embeds out");
    }
  }
  const isEncoded = request.promptEmbeds != null && request.negativePromptEmbeds != null;
  if (isEncoded && settings.clipSkip) {
    const got = `${settings.clipSkip} beside encoded prompts`;
    throw new UserError("clip skip", got, "0", "encode the prompts without their last layers, and leave it out");
  }
}

function checkEmbeds(request: GenerateRequest, manifest: Manifest): void {
  const [, tokens, width] = contextShape(manifest);
  const allowed = Array.from({ length: maxChunks(manifest) }, (_, i) => (i + 1) * tokens * width);
  const shape = (count: number) => `[1, ${count / width}, ${width}]`;
  const { promptEmbeds, negativePromptEmbeds } = request;
  for (const [name, embeds] of Object.entries({ promptEmbeds, negativePromptEmbeds })) {
    if (embeds == null) continue;
    const remedy = "encode a prompt with the same text encoder";
    if (!allowed.includes(embeds.length)) {
      const wanted = `${allowed.map(shape).join(" or ")}, what this bundle's UNet reads`;
      throw new UserError(words(name), `${embeds.length} numbers`, wanted, remedy);
    }
    if (!embeds.every(Number.isFinite)) throw new UserError(words(name), "NaN or infinity", "finite numbers", remedy);
  }
  if (promptEmbeds == null || negativePromptEmbeds == null) return;
  if (promptEmbeds.length !== negativePromptEmbeds.length) {
    const wanted = `${shape(promptEmbeds.length)}, the shape of the prompt embeds`;
    const got = shape(negativePromptEmbeds.length);
    throw new UserError("negative prompt embeds", got, wanted, "append chunks of an empty prompt");
  }
}

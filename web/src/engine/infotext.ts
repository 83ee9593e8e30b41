/**
 * The settings of a picture as Stable Diffusion web UI writes them into its PNG files, and many programs read them.
 *
 * Format: modules/infotext_utils.py and modules/processing.py of AUTOMATIC1111/stable-diffusion-webui; the entries of the
 * ControlNets: internal_controlnet of sd-webui-controlnet; that of guidance rescale: Seshelle/CFG_Rescale_webui. Twin: mlc_controlnet/runtime/infotext.py.
 */

import { WEBUI_CONTROL_MODES, WEBUI_SAMPLERS, WEBUI_SCHEDULERS, WEBUI_UPSCALERS } from "./constants.ts";
import { type Notice, noticeOf } from "./notices.ts";
import { separated } from "./option_text.ts";
import { perControlnet, type Settings } from "./request.ts";

const NEGATIVE_PROMPT = "Negative prompt:";
const RESCALE = "CFG Rescale";
/** As web UI has it; \w is any letter there, too. */
const ENTRY = /\s*([\p{L}\p{N}_][\p{L}\p{N}_ \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/gu;
/** Of a last line that holds settings and no prompt, as web UI counts. */
const LEAST_ENTRIES = 3;
const ETA: Readonly<Record<string, string>> = { ddim: "Eta DDIM", tcd: "Eta" };

type Names = readonly (readonly [webui: string, ours: string | null])[];
type Entries = Readonly<Record<string, string>>;
/** Values that are to be checked. */
type Options = Partial<Record<keyof Settings, unknown>>;

/**
 * The prompts, each on lines of its own, and below them the settings as `Name: value, ...`.
 *
 * The line of the negative prompt is always there: ComfyUI reads no picture without it. `sha256` is the bundle's.
 */
export function writeInfotext(settings: Settings, model: string, sha256: string): string {
  const entries = {
    Steps: String(settings.numInferenceSteps),
    Sampler: webuiName(WEBUI_SAMPLERS, settings.sampler),
    "Schedule type": webuiName(WEBUI_SCHEDULERS, settings.scheduleType),
    "CFG scale": String(settings.guidanceScale),
    Seed: String(settings.seed),
    Size: `${settings.width}x${settings.height}`,
    "Model hash": sha256.slice(0, 10),
    Model: model,
    ...optionalEntries(settings),
    ...controlnetEntries(settings),
  };
  const line = Object.entries(entries)
    .map(([name, value]) => `${name}: ${quote(value)}`)
    .join(", ");
  const [prompt, negative] = [settings.prompt, settings.negativePrompt].map((text) =>
    asWebui(text, settings.promptSyntax),
  );
  return `${prompt}\n${NEGATIVE_PROMPT} ${negative}\n${line}`;
}

/**
 * The options that the text names, with values to check, and what could not be read. Both are empty if it is no such text.
 * An option whose entry is missing or cannot be read is left out.
 */
export function readInfotext(text: string): { options: Options; notices: Notice[] } {
  const lines = text.trim().split("\n");
  const entries = entriesOf(lines[lines.length - 1]);
  if (Object.keys(entries).length < LEAST_ENTRIES || !("Steps" in entries)) return { options: {}, notices: [] };
  const found = lines.slice(0, -1).findIndex((line) => line.trim().startsWith(NEGATIVE_PROMPT));
  const start = found < 0 ? lines.length - 1 : found;
  const negative = lines.slice(start, -1).join("\n").trim();
  const options: Options = {
    prompt: lines.slice(0, start).join("\n").trim(),
    negativePrompt: (negative.startsWith(NEGATIVE_PROMPT) ? negative.slice(NEGATIVE_PROMPT.length) : negative).trim(),
    promptSyntax: "webui",
    numInferenceSteps: number(entries.Steps),
    guidanceScale: number(entries["CFG scale"]),
    guidanceRescale: number(entries[RESCALE]),
    seed: number(entries.Seed),
    eta: number(entries["Eta DDIM"] ?? entries.Eta),
    maskBlur: number(entries["Mask blur"]),
    maskedContent: entries["Masked content"],
  };
  const [, width, height] = /^(.*?)x(.*)$/.exec(entries.Size ?? "") ?? [];
  if (height !== undefined) {
    options.width = number(width);
    options.height = number(height);
  }
  const clipSkip = number(entries["Clip skip"]);
  if (clipSkip !== undefined) options.clipSkip = clipSkip - 1;
  if (entries["Inpaint area"] === "Only masked") {
    options.paddingMaskCrop = number(entries["Masked area padding"] ?? "32");
  }
  const notices: Notice[] = [];
  Object.assign(options, samplerOf(entries, notices), hiresOf(entries, notices), controlnetsOf(entries));
  return { options: Object.fromEntries(Object.entries(options).filter(([, value]) => value != null)), notices };
}

/** The web UI's word for one of ours, or ours if it has none. */
function webuiName(names: Names, ours: string | null): string {
  return names.find(([, value]) => value === ours)?.[0] ?? ours ?? "";
}

/** A prompt in which brackets mean what they mean to web UI; of a plain prompt they are text. */
function asWebui(prompt: string, syntax: string): string {
  return syntax === "plain" ? prompt.replace(/[\\()[\]]/g, "\\$&") : prompt;
}

function optionalEntries(settings: Settings): Record<string, string> {
  const entries: Record<string, string> = {};
  if (settings.hiresScale !== null) {
    entries["Denoising strength"] = String(settings.hiresStrength ?? 0);
    entries["Hires upscale"] = String(settings.hiresScale);
    entries["Hires steps"] = String(settings.hiresSteps);
    entries["Hires upscaler"] = webuiName(WEBUI_UPSCALERS, settings.hiresUpscaler);
  } else if (settings.strength < 1) {
    entries["Denoising strength"] = String(settings.strength);
  }
  if (settings.guidanceRescale) entries[RESCALE] = String(settings.guidanceRescale);
  if (settings.clipSkip) entries["Clip skip"] = String(settings.clipSkip + 1);
  if (settings.eta && settings.sampler in ETA) entries[ETA[settings.sampler]] = String(settings.eta);
  if (settings.maskBlur) entries["Mask blur"] = String(settings.maskBlur);
  if (settings.paddingMaskCrop !== null) {
    entries["Inpaint area"] = "Only masked";
    entries["Masked area padding"] = String(settings.paddingMaskCrop);
  }
  if (settings.maskedContent !== "original") entries["Masked content"] = settings.maskedContent;
  return entries;
}

function controlnetEntries(settings: Settings): Record<string, string> {
  const { controlnets } = settings;
  const count = controlnets.length;
  const weights = perControlnet(settings.controlnetConditioningScale, count);
  const starts = perControlnet(settings.controlGuidanceStart, count);
  const ends = perControlnet(settings.controlGuidanceEnd, count);
  const modes = perControlnet(settings.controlMode, count);
  const unit = (name: string, i: number) =>
    `Module: none, Model: ${name}, Weight: ${weights[i]}, Resize Mode: Crop and Resize, ` +
    `Guidance Start: ${starts[i]}, Guidance End: ${ends[i]}, Pixel Perfect: True, ` +
    `Control Mode: ${webuiName(WEBUI_CONTROL_MODES, modes[i])}`;
  return Object.fromEntries(controlnets.map((name, i) => [`ControlNet ${i}`, unit(name, i)]));
}

/** Read the sampler and its schedule. Older pictures have both in one entry: `DPM++ 2M Karras`. */
function samplerOf(entries: Entries, notices: Notice[]): Options {
  let { Sampler: name, "Schedule type": label } = entries as Record<string, string | undefined>;
  if (name !== undefined && find(WEBUI_SAMPLERS, name) === undefined) {
    for (const [ending] of WEBUI_SCHEDULERS) {
      if (name.toLowerCase().endsWith(` ${ending.toLowerCase()}`)) {
        label = ending;
        name = name.slice(0, -ending.length - 1);
      }
    }
  }
  const options: Options = {};
  const wanted = [
    ["sampler", WEBUI_SAMPLERS, name],
    ["scheduleType", WEBUI_SCHEDULERS, label],
  ] as const;
  for (const [option, names, value] of wanted) {
    const known = value === undefined ? undefined : find(names, value);
    if (known !== undefined) options[option] = known[1];
    else if (value) notices.push(noticeOf("unknown-value", { subject: separated(option, " "), value }));
  }
  return options;
}

/** Read the strength: web UI has one entry for the second pass of hires fix and for a picture to start from. */
function hiresOf(entries: Entries, notices: Notice[]): Options {
  const strength = number(entries["Denoising strength"]);
  const hiresScale = number(entries["Hires upscale"]);
  if (hiresScale === undefined) return { strength };
  const known = find(WEBUI_UPSCALERS, entries["Hires upscaler"] ?? "Latent");
  if (known === undefined) {
    notices.push(noticeOf("unknown-upscaler", { value: entries["Hires upscaler"] }));
    return {};
  }
  const hiresSteps = number(entries["Hires steps"]) || undefined; // web UI's 0: as many as the first pass
  return { hiresScale, hiresStrength: strength, hiresSteps, hiresUpscaler: known[1] };
}

function controlnetsOf(entries: Entries): Options {
  const units = Object.entries(entries)
    .filter(([name]) => /^ControlNet \d+$/.test(name))
    .map(([, value]) => entriesOf(value));
  if (units.length === 0) return {};
  const modes = units.map(
    (unit) => find(WEBUI_CONTROL_MODES, unit["Control Mode"] ?? "Balanced") ?? WEBUI_CONTROL_MODES[0],
  );
  return {
    controlnets: units.map((unit) => (unit.Model ?? "").replace(/\s*\[\w+\]$/, "")),
    controlnetConditioningScale: units.map((unit) => number(unit.Weight) ?? 1),
    controlGuidanceStart: units.map((unit) => number(unit["Guidance Start"]) ?? 0),
    controlGuidanceEnd: units.map((unit) => number(unit["Guidance End"]) ?? 1),
    controlMode: modes.map(([, mode]) => mode),
  };
}

function entriesOf(line: string): Record<string, string> {
  return Object.fromEntries([...line.matchAll(ENTRY)].map(([, name, value]) => [name, unquote(value)]));
}

function quote(text: string): string {
  return /[,\n:]/.test(text) ? JSON.stringify(text) : text;
}

function unquote(text: string): string {
  if (!text.startsWith('"')) return text.trim();
  try {
    return String(JSON.parse(text));
  } catch {
    return text;
  }
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(text.trim()) ? Number(text) : undefined;
}

function find(names: Names, name: string): Names[number] | undefined {
  const wanted = name.toLowerCase().replaceAll("_", " ");
  return names.find(([known]) => known.toLowerCase() === wanted);
}

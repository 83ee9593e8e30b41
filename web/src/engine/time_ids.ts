/**
 * What Stable Diffusion XL reads of pictures' sizes (arXiv 2307.01952, section 2.2), and the options for it.
 *
 * Twin: mlc_controlnet/runtime/time_ids.py.
 */

import type { FloatArray } from "./components.ts";
import { UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import { readsTimeIds } from "./model_traits.ts";
import { words } from "./option_text.ts";
import type { GenerateRequest, Settings } from "./request.ts";

/** Options that only Stable Diffusion XL reads. */
export const OF_XL = [
  "prompt2",
  "negativePrompt2",
  "originalSize",
  "cropsCoordsTopLeft",
  "targetSize",
  "negativeOriginalSize",
  "negativeCropsCoordsTopLeft",
  "negativeTargetSize",
] as const;
/** The names of encoded prompts and of the pooled outputs that belong to them. */
export const POOLED = {
  promptEmbeds: "pooledPromptEmbeds",
  negativePromptEmbeds: "negativePooledPromptEmbeds",
} as const;

/**
 * Float32 [1, 6]: original size, crop and target size of the prompt, or of the negative prompt.
 *
 * A negative option that is left out is that of the prompt.
 */
export function timeIds(settings: Settings, isNegative: boolean): FloatArray {
  let { originalSize: original, cropsCoordsTopLeft: crop, targetSize: target } = settings;
  if (isNegative) {
    original = settings.negativeOriginalSize ?? original;
    crop = settings.negativeCropsCoordsTopLeft ?? crop;
    target = settings.negativeTargetSize ?? target;
  }
  const size = [settings.height, settings.width] as const;
  return Float32Array.of(...(original ?? size), ...(crop ?? [0, 0]), ...(target ?? size));
}

/**
 * Throws UserError for an option of Stable Diffusion XL that this bundle does not read, and for pooled outputs that do not
 * belong to the encoded prompts.
 */
export function checkXl(settings: Settings, request: GenerateRequest, manifest: Manifest): void {
  const wanted = "none: only Stable Diffusion XL reads it";
  if (!readsTimeIds(manifest)) {
    for (const name of OF_XL) {
      const value = settings[name];
      if (value === null) continue;
      const text = typeof value === "string" ? value : JSON.stringify(value);
      throw new UserError(words(name), text, wanted, "leave it out");
    }
  }
  for (const [name, pooled] of Object.entries(POOLED) as [
    keyof typeof POOLED,
    (typeof POOLED)[keyof typeof POOLED],
  ][]) {
    const [embeds, value] = [request[name], request[pooled]];
    if (value != null && !readsTimeIds(manifest)) {
      throw new UserError(words(pooled), "an array", wanted, "leave it out");
    }
    if (readsTimeIds(manifest) && (embeds == null) !== (value == null)) {
      const got = value == null ? `none beside ${words(name)}` : `one without ${words(name)}`;
      throw new UserError(words(pooled), got, "both", "pass both, or the text");
    }
    if (value != null) checkPooled(words(pooled), value, manifest);
  }
}

function checkPooled(subject: string, value: FloatArray, { components }: Manifest): void {
  const [{ shape }] = components.unet.inputs.filter(({ name }) => name === "text_embeds");
  const remedy = "encode a prompt with the same text encoders";
  if (value.length !== shape[1]) {
    const wanted = `[${shape.join(", ")}], what this bundle's UNet reads`;
    throw new UserError(subject, `${value.length} numbers`, wanted, remedy);
  }
  if (!value.every(Number.isFinite)) throw new UserError(subject, "NaN or infinity", "finite numbers", remedy);
}

/**
 * Hires fix: draw a picture at one of the bundle's sizes, and from its enlarged latents once more at a larger one.
 *
 * The first pass decides on the composition, at a size near that of the training; the second adds detail. The options are
 * those of Stable Diffusion web UI's "Hires. fix" with a latent upscaler, except that `hiresStrength` says which share of
 * the steps runs, as `strength` does. Twin: mlc_controlnet/runtime/hires.py.
 */

import { UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import { words } from "./option_text.ts";
import type { GenerateRequest, Settings } from "./request.ts";
import type { Size } from "./size.ts";
import { checkSize } from "./variant_options.ts";

/** Throws UserError if the bundle lacks the larger size, there is a mask, or an option of hires fix stands alone. */
export function checkHires(settings: Settings, request: GenerateRequest, manifest: Manifest): void {
  if (settings.hiresScale === null) {
    for (const name of ["hiresStrength", "hiresSteps", "hiresUpscaler"] as const) {
      if (settings[name] === null) continue;
      throw new UserError(words(name), "one without a hires scale", "both", "pass both, or leave it out");
    }
    return;
  }
  checkSize("size of hires fix", hiresSize(settings), manifest);
  if (request.maskImage != null) {
    const remedy = "repaint first, then pass the result as image with hiresScale";
    throw new UserError("hires scale", "a mask image beside it", "no mask", remedy);
  }
}

/** The size of the second pass: whole pixels, the halves of them rounded up. */
export function hiresSize({ height, width, hiresScale }: Pick<Settings, "height" | "width" | "hiresScale">): Size {
  const scale = hiresScale as number;
  return { height: Math.floor(height * scale + 0.5), width: Math.floor(width * scale + 0.5) };
}

/** The settings of the second pass: img2img from the enlarged latents, with the seed of the first pass. */
export function hiresSettings(settings: Settings): Settings {
  return {
    ...settings,
    ...hiresSize(settings),
    numInferenceSteps: settings.hiresSteps as number, // `resolve` fills both in
    strength: settings.hiresStrength as number,
    timesteps: null,
    sigmas: null,
    hiresScale: null,
  };
}

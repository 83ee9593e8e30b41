/**
 * The options that a bundle must be built for: picture sizes, hires fix and DeepCache.
 *
 * Twin: mlc_controlnet/runtime/variant_options.py.
 */

import { UserError } from "./errors.ts";
import { type Manifest, sizes } from "./manifest.ts";
import type { GenerateRequest, Settings } from "./request.ts";
import type { Size } from "./size.ts";

/** Throws UserError if the bundle does not draw this size, not this large, or has no shallow UNet. */
export function checkVariant(settings: Settings, request: GenerateRequest, manifest: Manifest): void {
  checkSize("size", settings, manifest);
  if (settings.hiresScale !== null) {
    checkSize("size of hires fix", hiresSize(settings), manifest);
    if (request.maskImage != null) {
      const remedy = "repaint first, then pass the result as image with hiresScale";
      throw new UserError("hires scale", "a mask image beside it", "no mask", remedy);
    }
  }
  const interval = settings.deepcacheInterval;
  if (interval < 1) {
    const remedy = "leave it out to compute every step whole";
    throw new UserError("deepcache interval", String(interval), "1 or more", remedy);
  }
  if (interval > 1 && !Object.hasOwn(manifest.components, "unet_shallow")) {
    const remedy = "build the bundle again with --deepcache, or leave it out";
    throw new UserError("deepcache interval", String(interval), "1, because this bundle has no shallow UNet", remedy);
  }
}

/** Return the size of the second pass of hires fix, in whole pixels. */
export function hiresSize({ height, width, hiresScale }: Settings): Size {
  const scale = hiresScale ?? 1;
  return { height: Math.round(height * scale), width: Math.round(width * scale) };
}

/** Return the settings of the second pass of hires fix. */
export function hiresSettings(settings: Settings): Settings {
  const { numInferenceSteps, hiresSteps, hiresStrength } = settings;
  return {
    ...settings,
    ...hiresSize(settings),
    numInferenceSteps: hiresSteps ?? numInferenceSteps,
    strength: hiresStrength as number, // resolve fills it in
    timesteps: null,
    sigmas: null,
    hiresScale: null,
  };
}

function checkSize(subject: string, { height, width }: Size, manifest: Manifest): void {
  const known = sizes(manifest);
  if (known.some(([h, w]) => h === height && w === width)) return;
  const listed = known.map(([h, w]) => `${w}x${h}`).join(", ");
  const remedy = `choose one of them, or build the bundle with --size ${width}x${height} too`;
  throw new UserError(subject, `${width}x${height}`, `one of this bundle's, width x height: ${listed}`, remedy);
}

/**
 * The options that a bundle must be built for: picture sizes and DeepCache.
 *
 * Twin: mlc_controlnet/runtime/variant_options.py.
 */

import { UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import { sizes } from "./model_traits.ts";
import type { Settings } from "./request.ts";
import type { Size } from "./size.ts";

/** Throws UserError if the bundle does not draw this size, or has no shallow UNet. */
export function checkVariant(settings: Settings, manifest: Manifest): void {
  checkSize("size", settings, manifest);
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

/** Throws UserError if the bundle does not draw pictures of this size. */
export function checkSize(subject: string, { height, width }: Size, manifest: Manifest): void {
  const known = sizes(manifest);
  if (known.some(([h, w]) => h === height && w === width)) return;
  const listed = known.map(([h, w]) => `${w}x${h}`).join(", ");
  const remedy = `choose one of them, or build the bundle with --size ${width}x${height} too`;
  throw new UserError(subject, `${width}x${height}`, `one of this bundle's, width x height: ${listed}`, remedy);
}

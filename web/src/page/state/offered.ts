/** What a bundle offers of the options that the page has no fields for. */

import { hiresSize } from "../../engine/hires";
import { readsTimeIds, sizes, textLayers } from "../../engine/model_traits";
import { OF_XL } from "../../engine/time_ids";
import type { Manifest, Settings } from "../../worker";

const OF_HIRES = ["hiresScale", "hiresStrength", "hiresSteps", "hiresUpscaler"] as const;

/** The options, of those that are set, that the engine would refuse with this bundle. */
export function notOffered(manifest: Manifest, options: Partial<Settings>): readonly (keyof Settings)[] {
  const missing: readonly (keyof Settings)[] = [
    ...(readsTimeIds(manifest) ? [] : OF_XL),
    ...(drawsHires(manifest, options) ? [] : OF_HIRES),
    ...(Object.hasOwn(manifest.components, "unet_shallow") ? [] : (["deepcacheInterval"] as const)),
    ...((options.clipSkip ?? 0) < textLayers(manifest) ? [] : (["clipSkip"] as const)),
  ];
  return missing.filter((name) => options[name] != null);
}

/** Whether hires fix can begin at some size of the bundle's: the visitor chooses which. */
function drawsHires(manifest: Manifest, { hiresScale }: Partial<Settings>): boolean {
  if (hiresScale == null) return true;
  const known = sizes(manifest);
  return known.some(([height, width]) => {
    const large = hiresSize({ height, width, hiresScale });
    return known.some((size) => size[0] === large.height && size[1] === large.width);
  });
}

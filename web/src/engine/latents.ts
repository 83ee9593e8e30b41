/**
 * The arithmetic of latents around the denoising loop: where it starts, what it keeps, and a larger start.
 *
 * Twin: mlc_controlnet/runtime/latents.py.
 */

import type { FloatArray } from "./components.ts";
import { UPSCALE_MODES } from "./constants.ts";
import { UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import type { Size } from "./size.ts";

/** The parameter of torch's cubic convolution. */
const CUBIC_A = -0.75;

export type UpscaleMode = (typeof UPSCALE_MODES)[number];

/**
 * Return the index of the first step that runs, as diffusers' `get_timesteps`: 0 for strength 1.
 *
 * The steps before it are left out; for strength 0 these are all.
 */
export function firstStep(numInferenceSteps: number, strength: number): number {
  return numInferenceSteps - Math.min(Math.trunc(numInferenceSteps * strength), numInferenceSteps);
}

/** Return latents of [1, C, h, w]; throw UserError for another length, NaN and infinity. */
export function checkLatents(subject: string, latents: FloatArray, { model }: Manifest, remedy: string): FloatArray {
  const { latent_channels, vae_scale_factor, height, width } = model;
  const shape = [1, latent_channels, height / vae_scale_factor, width / vae_scale_factor];
  const count = shape.reduce((product, size) => product * size);
  if (latents.length === count && latents.every(Number.isFinite)) return latents;
  const got = `${latents.length} numbers${latents.length === count ? " with NaN or infinity" : ""}`;
  throw new UserError(subject, got, `[${shape.join(", ")}] of finite numbers`, remedy);
}

/**
 * Return x where the mask is 1 and `kept` where it is 0: the latents of a four-channel UNet after a step.
 *
 * x, kept: float32 [1, C, h, w], as is the result; mask: float32 [1, 1, h, w]. `kept` are the picture's latents with the
 * noise of the next step's timestep; after the last step without noise. This is diffusers'
 * StableDiffusionControlNetInpaintPipeline.
 */
export function blendLatents(x: FloatArray, kept: FloatArray, mask: FloatArray): FloatArray {
  return x.map((value, i) => {
    const share = mask[i % mask.length];
    return (1 - share) * kept[i] + share * value;
  });
}

/**
 * Resample latents for hires fix, as torch.nn.functional.interpolate does with `align_corners` false.
 *
 * latents: float32 [1, C, h, w] of size `from`; the result is float32 [1, C, h, w] of size `to`.
 *
 * Throws UserError for a mode that is not in UPSCALE_MODES.
 */
export function upscaleLatents(latents: FloatArray, from: Size, to: Size, mode: UpscaleMode = "bilinear"): FloatArray {
  if (!UPSCALE_MODES.includes(mode)) {
    throw new UserError(
      "latent upscale mode",
      `'${mode}'`,
      `one of ${UPSCALE_MODES.join(", ")}`,
      "choose one of these",
    );
  }
  const channels = latents.length / (from.width * from.height);
  const rows = resample(Float64Array.from(latents), [channels, from.height, from.width], to.height, mode);
  return Float32Array.from(resample(rows, [channels * to.height, from.width, 1], to.width, mode));
}

/** Return [outer, length, inner] of [outer, count, inner]: each cell a weighted sum of a few. */
function resample(
  x: Float64Array,
  [outer, count, inner]: readonly [number, number, number],
  length: number,
  mode: UpscaleMode,
): Float64Array {
  const output = new Float64Array(outer * length * inner);
  for (let index = 0; index < length; index++) {
    for (const [cell, weight] of taps(index, length, count, mode)) {
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          output[(o * length + index) * inner + i] += weight * x[(o * count + cell) * inner + i];
        }
      }
    }
  }
  return output;
}

/** Return the cells, of `count`, that cell `index` of `length` is computed from, and their weights. */
function taps(index: number, length: number, count: number, mode: UpscaleMode): [cell: number, weight: number][] {
  if (mode === "nearest" || mode === "nearest-exact") {
    const begin = mode === "nearest-exact" ? index + 0.5 : index;
    const cell = Math.floor(Math.fround(Math.fround(begin) * Math.fround(count / length))); // torch rounds to float32 before floor
    return [[Math.min(cell, count - 1), 1]];
  }
  const center = ((index + 0.5) * count) / length - 0.5;
  if (mode === "bilinear") {
    const inside = Math.max(center, 0);
    const cell = Math.floor(inside);
    const weight = inside - cell;
    return [
      [cell, 1 - weight],
      [Math.min(cell + 1, count - 1), weight],
    ];
  }
  const cell = Math.floor(center);
  return [-1, 0, 1, 2].map((i) => [Math.min(Math.max(cell + i, 0), count - 1), cubic(Math.abs(center - cell - i))]);
}

/** Return the weight of a cell for cubic convolution (Keys, IEEE Trans. ASSP 29(6), 1981), up to a distance of 2. */
function cubic(distance: number): number {
  const [a, t] = [CUBIC_A, distance];
  if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return ((t - 5) * t + 8) * t * a - 4 * a;
}

/**
 * What a repainted part starts from: sd-webui's "masked content". Twin: mlc_controlnet/runtime/masked_content.py.
 *
 * `fill` continues the colours around the part into it; `original` keeps the picture; `latent noise` and `latent nothing`
 * replace the part's latents too, by the noise of the drawing and by zeros (AUTOMATIC1111, modules masking and processing).
 * The rule of `fill` is a stack of layers. Each is the picture without the part, blurred, and covers the wider ones below it
 * as far as it is opaque.
 */

import type { FloatArray } from "./components.ts";
import type { MaskedContent } from "./mask_options.ts";
import type { Picture } from "./picture.ts";
import type { Size } from "./size.ts";

/** The standard deviation of the blur in pixels, and how often the layer covers. */
const LAYERS = [
  [256, 1],
  [64, 1],
  [16, 2],
  [4, 4],
  [2, 2],
  [0, 1],
] as const;
/** Pillow's Gaussian is so many box filters after each other. */
const BOXES = 3;

/**
 * Fill the part of a picture that is white in its mask, of the same size, with the colours around it, blurred.
 *
 * Where the mask is black, the pixels stay. If it is white everywhere, the result is black.
 */
export function fill(picture: Picture, mask: Picture): Picture {
  const [masked] = mask.planes;
  const opacity = Float64Array.from(masked, (grey) => 1 - grey / 255);
  const known = [...picture.planes.map((plane) => Float64Array.from(plane, (c, i) => c * opacity[i])), opacity];
  const result = known.map(({ length }) => new Float64Array(length)); // colours times opacity, opacity
  for (const [radius, repeats] of LAYERS) {
    const layer = known.map((plane) => gaussian(plane, picture, radius));
    const covering = layer[layer.length - 1];
    for (let i = 0; i < covering.length; i++) {
      const seen = (1 - covering[i]) ** repeats; // the share of what is below that shines through
      const counts = repeated(covering[i], seen, repeats);
      result.forEach((plane, channel) => {
        plane[i] = plane[i] * seen + layer[channel][i] * counts;
      });
    }
  }
  const shown = result[result.length - 1];
  const planes = picture.planes.map((_, channel) =>
    Uint8ClampedArray.from(shown, (share, i) => (share > 0 ? Math.floor(result[channel][i] / share + 0.5) : 0)),
  );
  return { width: picture.width, height: picture.height, planes };
}

/**
 * Return the latents that a repainted picture starts from; but for the two kinds of latent content, its own.
 *
 * latents, noise: float32 [1, C, h, w], as is the result; mask: float32 [1, 1, h, w], 1 where the model repaints.
 */
export function maskLatents(
  latents: FloatArray,
  noise: FloatArray,
  mask: FloatArray,
  maskedContent: MaskedContent,
): FloatArray {
  const share = (i: number) => mask[i % mask.length];
  if (maskedContent === "latent noise") return latents.map((x, i) => x * (1 - share(i)) + noise[i] * share(i));
  return maskedContent === "latent nothing" ? latents.map((x, i) => x * (1 - share(i))) : latents;
}

/**
 * Blur a plane as Pillow's GaussianBlur does, by box filters whose sides are fractions of pixels. Edges are continued.
 *
 * radius: the standard deviation in pixels; 0 blurs nothing.
 */
export function gaussian(plane: Float64Array, { height, width }: Size, radius: number): Float64Array {
  if (radius === 0) return plane;
  const half = boxRadius(radius);
  let pixels = plane;
  for (let i = 0; i < BOXES; i++) pixels = box(pixels, half, { lines: height, length: width, line: width, step: 1 });
  for (let i = 0; i < BOXES; i++) pixels = box(pixels, half, { lines: width, length: height, line: 1, step: width });
  return pixels;
}

/** Half the side of a box, without its centre, so that BOXES of them have the variance of the Gaussian. */
function boxRadius(radius: number): number {
  const variance = (radius * radius) / BOXES;
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const rest = ((2 * whole + 1) * (whole * (whole + 1) - 3 * variance)) / (6 * (variance - (whole + 1) * (whole + 1)));
  return whole + rest;
}

/** How a plane is read: so many lines of so many pixels, and the distances of lines and pixels in memory. */
interface Lines {
  readonly lines: number;
  readonly length: number;
  readonly line: number;
  readonly step: number;
}

/** Average over `half` pixels on both sides; the outermost two count by their share. */
function box(plane: Float64Array, half: number, { lines, length, line, step }: Lines): Float64Array {
  const whole = Math.floor(half);
  const rest = half - whole;
  const result = new Float64Array(plane.length);
  const sums = new Float64Array(length + 2 * whole + 3);
  for (let y = 0; y < lines; y++) {
    const pixel = (x: number) => plane[y * line + Math.min(Math.max(x, 0), length - 1) * step];
    for (let i = 1; i < sums.length; i++) sums[i] = sums[i - 1] + pixel(i - whole - 2);
    for (let x = 0; x < length; x++) {
      const inner = sums[x + 2 * whole + 2] - sums[x + 1];
      const outer = pixel(x - whole - 1) + pixel(x + whole + 1);
      result[y * line + x * step] = (inner + rest * outer) / (2 * half + 1);
    }
  }
  return result;
}

/** By how much a layer counts that covers itself: 1 + (1 - opacity) + (1 - opacity)^2 + ... */
function repeated(opacity: number, seen: number, repeats: number): number {
  return opacity > 1e-6 ? (1 - seen) / opacity : repeats;
}

/**
 * Masks, which are white where the model repaints: soften one, and find the part of the picture that it selects.
 *
 * A mask is a picture with one plane. Twin: mlc_controlnet/runtime/masks.py.
 */

import type { Crop } from "./crop.ts";
import { type Box, cropPicture, type Picture, type Plane, transpose } from "./picture.ts";
import type { Size } from "./size.ts";

/**
 * Blur a mask with a Gaussian along x, then along y, as sd-webui does.
 *
 * maskBlur: the standard deviation in pixels, 0 or more. The kernel has 2 floor(2.5 maskBlur + 0.5) + 1 taps; borders are
 * mirrored without a repetition of the outermost pixel.
 */
export function blurMask(mask: Picture, maskBlur: number): Picture {
  const radius = Math.floor(2.5 * maskBlur + 0.5);
  const box = paintedBox(mask);
  if (radius === 0 || box === undefined) return mask;
  const powers = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / maskBlur) ** 2));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const taps = Float64Array.from(powers, (power) => power / total);
  // No pixel farther from the painted ones becomes grey. One more, so that what a border inside mirrors is black.
  const around = grown(box, radius + 1, mask);
  const part = cropPicture(mask, around);
  const wide = transpose(blurRows(part.planes[0], part, taps), part);
  const turned = { width: part.height, height: part.width };
  const both = transpose(blurRows(wide, turned, taps), turned);
  const blurred = new Uint8ClampedArray(mask.width * mask.height);
  for (let y = 0; y < part.height; y++) {
    blurred.set(both.subarray(y * part.width, (y + 1) * part.width), (around.top + y) * mask.width + around.left);
  }
  return { width: mask.width, height: mask.height, planes: [blurred] };
}

/**
 * Find the part of a picture that shows every pixel of its mask that is not black, and `padding` pixels around.
 *
 * The part grows to the aspect ratio of `height` x `width`, the size at which it is drawn, and moves or shrinks where it
 * would leave the picture. This is diffusers' VaeImageProcessor.get_crop_region.
 *
 * mask: of the picture's size. Returns undefined for a mask that is black everywhere.
 */
export function cropAround(mask: Picture, height: number, width: number, padding: number): Crop | undefined {
  const box = paintedBox(mask);
  if (box === undefined) return undefined;
  const picture = { width: mask.width, height: mask.height };
  let { left, top, right, bottom } = grown(box, padding, picture);
  const aspect = width / height;
  if ((right - left) / (bottom - top) > aspect) {
    [top, bottom] = grow(top, bottom, Math.trunc((right - left) / aspect - (bottom - top)), picture.height);
  } else {
    [left, right] = grow(left, right, Math.trunc((bottom - top) * aspect - (right - left)), picture.width);
  }
  return { left, top, right, bottom, picture };
}

/** Return the smallest part that holds every pixel that is not black; undefined if all are. */
function paintedBox({ width, height, planes: [levels] }: Picture): Box | undefined {
  const box = { left: width, top: height, right: 0, bottom: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (levels[y * width + x] === 0) continue;
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y);
      box.bottom = y + 1;
    }
  }
  return box.bottom > 0 ? box : undefined;
}

/** Move every side of a part outwards, inside of a picture. */
function grown({ left, top, right, bottom }: Box, margin: number, { width, height }: Size): Box {
  return {
    left: Math.max(left - margin, 0),
    top: Math.max(top - margin, 0),
    right: Math.min(right + margin, width),
    bottom: Math.min(bottom + margin, height),
  };
}

/** Convolve rows with an odd number of symmetric taps that sum to 1. */
function blurRows(plane: Plane, { width, height }: Size, taps: Float64Array): Plane {
  const radius = (taps.length - 1) / 2;
  const columns = Int32Array.from({ length: width + 2 * radius }, (_, i) => mirrored(i - radius, width));
  const output = new Uint8ClampedArray(width * height);
  const row = new Float64Array(columns.length);
  for (let y = 0; y < height; y++) {
    for (let i = 0; i < row.length; i++) row[i] = plane[y * width + columns[i]];
    for (let x = 0; x < width; x++) {
      let total = 0;
      for (let i = 0; i < taps.length; i++) total += taps[i] * row[x + i];
      output[y * width + x] = Math.floor(total + 0.5);
    }
  }
  return output;
}

/** Fold an index into 0..count - 1 at the centres of the outermost pixels. */
function mirrored(index: number, count: number): number {
  if (count === 1) return 0;
  const period = 2 * (count - 1);
  const folded = ((index % period) + period) % period;
  return Math.min(folded, period - folded);
}

/** Lengthen start..end by `growth`, half on each side, inside of 0..limit as far as there is room. */
function grow(from: number, to: number, growth: number, limit: number): [start: number, end: number] {
  let start = from - Math.floor(growth / 2);
  let end = to + growth - Math.floor(growth / 2);
  if (end > limit) [start, end] = [start - (end - limit), limit];
  if (start < 0) [start, end] = [0, end - start];
  return [start, Math.min(end, limit)];
}

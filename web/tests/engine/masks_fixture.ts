/** The numbers that Python's twins computed, and the inputs that they computed them from. */

import { readFileSync } from "node:fs";
import type { Picture } from "../../src/engine/picture";

type Box = [left: number, top: number, right: number, bottom: number];
type Painted = [top: number, left: number, bottom: number, right: number];
type Size = [height: number, width: number];

interface Golden {
  blurred: { mask: Painted; mask_blur: number; levels: string }[];
  filled: { mask: Painted; mask_blur: number; pixels: string }[];
  around: { mask: Painted; padding: number; size: Size; box: Box }[];
  cut_out: { box: Box; pixels: string }[];
  put_back: { box: Box; pixels: string }[];
  pasted: { box: Box; mask: Painted; mask_blur: number; pixels: string };
  upscaled: { mode: string; size: Size; latents: number[] }[];
  first_steps: [steps: number, strength: number, first: number][];
  axes: { length: number; tile: number; tiles: [start: number, place: number][] }[];
  tiled: number[];
}

/** Written by the command that it names. */
export const golden: Golden = JSON.parse(
  readFileSync(new URL("../../../tests/fixtures/masks.json", import.meta.url), "utf8"),
);

export const PICTURE = { height: 30, width: 40 };
export const MODEL = { height: 16, width: 24 };

/** RGB without a pattern. */
export function picture({ height, width } = PICTURE): Picture {
  const planes = [37, 59, 83].map((factor) =>
    Uint8ClampedArray.from({ length: height * width }, (_, i) => {
      const [x, y] = [i % width, Math.floor(i / width)];
      return (factor * x * x + 101 * y * y + 13 * x * y) % 251;
    }),
  );
  return { height, width, planes };
}

/** White inside of the box. */
export function maskOf([top, left, bottom, right]: Painted): Picture {
  const { height, width } = PICTURE;
  const levels = Uint8ClampedArray.from({ length: height * width }, (_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    return x >= left && x < right && y >= top && y < bottom ? 255 : 0;
  });
  return { height, width, planes: [levels] };
}

/** 0, 1, 4, 9, ... modulo 23. */
export function ramp(count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => (i * i) % 23);
}

/** The largest difference between a picture and bytes of [H, W, C] in base64. */
export function distance({ planes }: Picture, base64: string): number {
  const wanted = Buffer.from(base64, "base64");
  if (wanted.length !== planes.length * planes[0].length) return Number.POSITIVE_INFINITY;
  return wanted.reduce((largest, value, i) => {
    const [place, channel] = [Math.floor(i / planes.length), i % planes.length];
    return Math.max(largest, Math.abs(planes[channel][place] - value));
  }, 0);
}

/** Pictures as planes of 8 bits, resized and cropped as Pillow does. */

import type { FloatArray } from "./components.ts";
import type { Size } from "./size.ts";

const LANCZOS_LOBES = 3;
/** Pillow's weights are integers of this unit. */
const WEIGHT_ONE = 2 ** 22;

/** Pixels as ImageData has them: RGBA, 8 bits each, not premultiplied, rows from the top. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

/** Return whether all pixels have the colour of the first. */
export function isOfOneColour({ data }: Image): boolean {
  const pixels = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
  return pixels.every((pixel) => pixel === pixels[0]);
}

/** One value per pixel, row by row. */
export type Plane = Uint8ClampedArray<ArrayBuffer>;

/** An opaque picture. */
export interface Picture extends Size {
  /** Red, green and blue, or grey: each of H x W. */
  readonly planes: readonly Plane[];
}

/** left <= x < right, top <= y < bottom, in pixels. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** Resize a picture, or the part of it in `box`, whose sides may be fractions; the filter also reads the pixels around it. */
export function resizePicture(picture: Picture, size: Size, box: Box = wholeBox(picture)): Picture {
  return { ...size, planes: picture.planes.map((plane) => resizePlane(plane, picture, size, box)) };
}

/** Cut a part with whole numbers as sides out of a picture; what lies outside of the picture is black. */
export function cropPicture(picture: Picture, { left, top, right, bottom }: Box): Picture {
  const [width, height] = [right - left, bottom - top];
  const planes = picture.planes.map((plane) => {
    const part = new Uint8ClampedArray(width * height);
    for (let y = Math.max(0, -top); y < height && top + y < picture.height; y++) {
      const row = (top + y) * picture.width;
      const visible = plane.subarray(row + Math.max(0, left), row + Math.min(picture.width, right));
      part.set(visible, y * width + Math.max(0, -left));
    }
    return part;
  });
  return { width, height, planes };
}

/** Return the three planes of an image, and ignore its transparency. */
export function toPlanes({ width, height, data }: Image): Picture {
  const planes = [0, 1, 2].map((channel) => {
    const plane = new Uint8ClampedArray(width * height);
    for (let i = 0; i < plane.length; i++) plane[i] = data[4 * i + channel];
    return plane;
  });
  return { width, height, planes };
}

/** Return red, green and blue as opaque RGBA. */
export function toImage({ width, height, planes }: Picture): Image {
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  planes.forEach((plane, channel) => {
    for (let i = 0; i < plane.length; i++) data[4 * i + channel] = plane[i];
  });
  return { width, height, data };
}

/** Return float32 [1, C, H, W] in 0..1. */
export function toPixels({ width, height, planes }: Picture): FloatArray {
  const pixels = new Float32Array(planes.length * height * width);
  planes.forEach((plane, channel) => {
    for (let i = 0; i < plane.length; i++) pixels[channel * plane.length + i] = plane[i] / 255;
  });
  return pixels;
}

/** Turn three planes into one of grey: ITU-R 601-2 luma in 16 bits of fraction, as Pillow computes it. */
export function toGrey({ width, height, planes: [red, green, blue] }: Picture): Picture {
  const grey = red.map((_, i) => (19595 * red[i] + 38470 * green[i] + 7471 * blue[i] + 0x8000) >>> 16);
  return { width, height, planes: [grey] };
}

function wholeBox({ width, height }: Size): Box {
  return { left: 0, top: 0, right: width, bottom: height };
}

function resizePlane(plane: Plane, from: Size, { width, height }: Size, { left, top, right, bottom }: Box): Plane {
  const wide = resampleRows(plane, from, { offset: left, extent: right - left, count: width });
  const turned = transpose(wide, { width, height: from.height });
  const rows = { width: from.height, height: width };
  const both = resampleRows(turned, rows, { offset: top, extent: bottom - top, count: height });
  return transpose(both, { width: height, height: width });
}

interface Span {
  /** The start of the visible part, in source pixels. */
  readonly offset: number;
  /** The length of the visible part, in source pixels. */
  readonly extent: number;
  /** The number of pixels that it becomes. */
  readonly count: number;
}

/**
 * Resample each row with a Lanczos window of three lobes, as Pillow does, to the last bit where it resamples rows first
 * too; from version 13 on, it does not if the height shrinks much more. The more a picture shrinks, the wider the window:
 * every source pixel counts, so thin outlines stay visible.
 */
function resampleRows(plane: Plane, { width, height }: Size, { offset, extent, count }: Span): Plane {
  const scale = extent / count;
  if (offset === 0 && extent === width && count === width) return plane;
  const stretch = Math.max(scale, 1);
  const support = LANCZOS_LOBES * stretch;
  const output = new Uint8ClampedArray(count * height);
  for (let x = 0; x < count; x++) {
    const center = offset + (x + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(width, Math.floor(center + support + 0.5));
    const heights = Array.from({ length: last - first }, (_, i) => lanczos((first + i + 0.5 - center) / stretch));
    const total = heights.reduce((sum, height) => sum + height, 0);
    const weights = heights.map((height) => Math.round((height / total) * WEIGHT_ONE));
    for (let y = 0; y < height; y++) {
      let sum = WEIGHT_ONE / 2;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * plane[y * width + first + i];
      output[y * count + x] = Math.floor(sum / WEIGHT_ONE); // clips
    }
  }
  return output;
}

/** Return sinc(x) sinc(x / 3) inside three lobes, and 0 outside. */
function lanczos(x: number): number {
  return Math.abs(x) < LANCZOS_LOBES ? sinc(x) * sinc(x / LANCZOS_LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Exchange rows and columns of a plane of one value per pixel. */
export function transpose(plane: Plane, { width, height }: Size): Plane {
  const output = new Uint8ClampedArray(plane.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) output[x * height + y] = plane[y * width + x];
  }
  return output;
}

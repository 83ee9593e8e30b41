/**
 * Prepare pictures for the model: the control image, and the picture and the mask of an inpainting model.
 * The twin of mlc_controlnet/images/prepare.py, without the decoding, which the browser does.
 */

import { MIN_SIDE } from "./constants.ts";
import { UserError } from "./errors.ts";

const LANCZOS_LOBES = 3;
/** The default name of a picture in errors and notices. */
const SUBJECT = "control image";

/** Pixels as ImageData has them: RGBA, 8 bits each, not premultiplied, rows from the top. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

export interface ControlImage {
  /** float32 [1, 3, H, W] in 0..1. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The changes that made it fit, one sentence each. */
  readonly notices: readonly string[];
}

/** A picture of the size that a model wants. */
export interface FittedImage {
  /** Opaque RGBA of H x W. */
  readonly image: Image;
  /** The changes that made it fit, one sentence each. */
  readonly notices: readonly string[];
}

/**
 * Turn any picture into RGB of the model's size, as the ControlNet reads it.
 *
 * Throws UserError if it is not a picture or has less than 8 pixels on a side.
 */
export function prepareImage(image: Image, height: number, width: number, subject: string = SUBJECT): ControlImage {
  const { planes, notices } = fitPlanes(image, height, width, subject);
  const pixels = new Float32Array(3 * height * width); // [1, 3, H, W]
  planes.forEach((plane, channel) => {
    for (let i = 0; i < plane.length; i++) pixels[channel * plane.length + i] = plane[i] / 255;
  });
  return { pixels, notices };
}

/**
 * Fit any picture to the size that the model wants, with the same pixels as prepareImage. A page can show what
 * the engine will read.
 *
 * Throws UserError if it is not a picture or has less than 8 pixels on a side. `subject` names it in errors and notices.
 */
export function fitImage(image: Image, height: number, width: number, subject: string = SUBJECT): FittedImage {
  const { planes, notices } = fitPlanes(image, height, width, subject);
  const data = new Uint8ClampedArray(4 * height * width).fill(255);
  planes.forEach((plane, channel) => {
    for (let i = 0; i < plane.length; i++) data[4 * i + channel] = plane[i];
  });
  return { image: { width, height, data }, notices };
}

/**
 * Return red, green and blue as planes of H x W.
 *
 * Transparent pixels are composited on black (no outline, no control). A picture of another size is scaled until it covers
 * H x W, its aspect kept, and cropped around its centre.
 */
function fitPlanes(image: Image, height: number, width: number, subject: string) {
  checkImage(image, height, width, subject);
  const notices: string[] = [];
  const { planes, transparent } = compositeOnBlack(image);
  if (transparent) notices.push(`${subject}: its transparency was composited on black`);
  if (image.width === width && image.height === height) return { planes, notices };
  const cropped = image.width * height !== image.height * width ? " and cropped around its centre" : "";
  notices.push(`${subject}: ${image.width}x${image.height} was scaled to cover ${width}x${height}${cropped}`);
  return { planes: planes.map((plane) => resizeToCover(plane, image, { width, height })), notices };
}

/** Throw UserError for a value without pixels. A canvas has none, and a page could not send it to a worker either. */
export function checkPixels(image: Partial<Image> | undefined, subject: string = SUBJECT): void {
  if (ArrayBuffer.isView(image?.data)) return;
  const got = typeof image === "object" ? `${image?.constructor.name ?? null} without pixels` : String(image);
  const remedy = "pass context.getImageData(0, 0, width, height) of a canvas";
  throw new UserError(subject, got, "pixels as in ImageData", remedy);
}

function checkImage(image: Image, wantedHeight: number, wantedWidth: number, subject: string): void {
  checkPixels(image, subject);
  const { width, height, data } = image;
  if (!(width > 0 && height > 0) || data.length !== 4 * width * height) {
    const got = `${width}x${height} with ${data.length} bytes`;
    throw new UserError(subject, got, "RGBA, four bytes per pixel", "pass ImageData");
  }
  if (Math.min(width, height) < MIN_SIDE) {
    const wanted = `${MIN_SIDE}x${MIN_SIDE} at least`;
    throw new UserError(subject, `${width}x${height} pixels`, wanted, `draw one of ${wantedWidth}x${wantedHeight}`);
  }
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/** Return three planes of 0..255, row by row, and whether any pixel was transparent. */
function compositeOnBlack({ width, height, data }: Image): { planes: Uint8ClampedArray[]; transparent: boolean } {
  const planes = [0, 1, 2].map(() => new Uint8ClampedArray(width * height));
  let transparent = false;
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    if (alpha !== 255) transparent = true;
    for (let channel = 0; channel < 3; channel++) {
      planes[channel][i] = Math.round((data[4 * i + channel] * alpha) / 255);
    }
  }
  return { planes, transparent };
}

/** Resize one plane so that it covers `target`, and keep its centre. */
function resizeToCover(plane: Uint8ClampedArray, from: Size, target: Size): Uint8ClampedArray {
  const scale = Math.max(target.width / from.width, target.height / from.height);
  // The part of the source that stays visible, centred.
  const visible = { width: target.width / scale, height: target.height / scale };
  const left = (from.width - visible.width) / 2;
  const top = (from.height - visible.height) / 2;
  const wide = resampleRows(plane, from, { offset: left, extent: visible.width, count: target.width });
  const turned = transpose(wide, { width: target.width, height: from.height });
  const both = resampleRows(
    turned,
    { width: from.height, height: target.width },
    { offset: top, extent: visible.height, count: target.height },
  );
  return transpose(both, { width: target.height, height: target.width });
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
 * Resample each row with a Lanczos window of three lobes, as Pillow does. The more a picture shrinks, the wider the
 * window: every source pixel counts, so thin outlines stay visible.
 */
function resampleRows(
  plane: Uint8ClampedArray,
  { width, height }: Size,
  { offset, extent, count }: Span,
): Uint8ClampedArray {
  const scale = extent / count;
  const stretch = Math.max(scale, 1);
  const support = LANCZOS_LOBES * stretch;
  const output = new Uint8ClampedArray(count * height);
  for (let x = 0; x < count; x++) {
    const center = offset + (x + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(width, Math.floor(center + support + 0.5));
    const weights = Array.from({ length: last - first }, (_, i) => lanczos((first + i + 0.5 - center) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let y = 0; y < height; y++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * plane[y * width + first + i];
      output[y * count + x] = sum / total; // rounds and clips
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

function transpose(plane: Uint8ClampedArray, { width, height }: Size): Uint8ClampedArray {
  const output = new Uint8ClampedArray(plane.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) output[x * height + y] = plane[y * width + x];
  }
  return output;
}

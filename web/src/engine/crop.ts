/**
 * Cut a part out of a picture at the model's size, and put the drawn part back at its own size.
 *
 * The resampling is that of diffusers' VaeImageProcessor: `resize_mode` "fill" on the way in, "crop" on the way back.
 * Twin: mlc_controlnet/runtime/crop.py.
 */

import { type Box, cropPicture, type Picture, type Plane, resizePicture, transpose } from "./picture.ts";
import type { Size } from "./size.ts";

/** The part of a picture that is drawn, in pixels of that picture. */
export interface Crop extends Box {
  /** The size of the whole picture. */
  readonly picture: Size;
}

/** Return the size of a part, in pixels of its picture. */
export function sizeOf({ left, top, right, bottom }: Box): Size {
  return { width: right - left, height: bottom - top };
}

/**
 * Scale the part to fit into `height` x `width`, keep its aspect ratio, and extend its edges to the full size.
 *
 * `picture` has the crop's picture size. Only a part that the picture's border cut off has another aspect ratio than
 * `height` x `width`, apart from a rounding.
 */
export function cutOut(picture: Picture, crop: Crop, height: number, width: number): Picture {
  const part = cropPicture(picture, crop);
  const size =
    width * part.height < part.width * height
      ? { width, height: Math.max(1, Math.floor((part.height * width) / part.width)) }
      : { width: Math.max(1, Math.floor((part.width * height) / part.height)), height };
  const content = resizePicture(part, size);
  const planes = content.planes.map((plane) => {
    const turned = transpose(extendRows(plane, size, width), { width, height: size.height });
    return transpose(extendRows(turned, { width: size.height, height: width }, height), {
      width: height,
      height: width,
    });
  });
  return { width, height, planes };
}

/** Undo `cutOut`: scale a picture to cover the part's size, and crop it around its centre. */
export function putBack(picture: Picture, crop: Crop): Picture {
  const { width, height } = sizeOf(crop);
  const size =
    width * picture.height > picture.width * height
      ? { width, height: Math.floor((picture.height * width) / picture.width) }
      : { width: Math.floor((picture.width * height) / picture.height), height };
  const left = Math.floor(size.width / 2) - Math.floor(width / 2);
  const top = Math.floor(size.height / 2) - Math.floor(height / 2);
  return cropPicture(resizePicture(picture, size), { left, top, right: left + width, bottom: top + height });
}

/** Extend each row on both ends to `length`, evenly. */
function extendRows(plane: Plane, { width, height }: Size, length: number): Plane {
  if (width === length) return plane;
  const before = Math.floor(length / 2) - Math.floor(width / 2);
  const output = new Uint8ClampedArray(length * height);
  for (let y = 0; y < height; y++) {
    const row = plane.subarray(y * width, (y + 1) * width);
    const start = y * length;
    output.fill(edge(row[0], row[Math.min(1, width - 1)]), start, start + before);
    output.set(row, start + before);
    output.fill(edge(row[width - 1], row[Math.max(0, width - 2)]), start + before + width, start + length);
  }
  return output;
}

/** Return the pixel that continues an edge: that which Pillow's bicubic filter gives for a box without extent. */
function edge(outer: number, inner: number): number {
  return Math.floor(Math.min(Math.max(1.125 * outer - 0.125 * inner, 0), 255) + 0.5);
}

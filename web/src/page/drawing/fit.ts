/** How a picture of another shape fills the model's frame. */

import { noticeOf } from "../../engine/notices";
import { resizePicture, toImage } from "../../engine/picture";
import { readPicture } from "../../engine/prepare_image";
import { type FittedImage, fitImage, type Image } from "../../worker";
import type { Size } from "./marks";

/** crop: what stands out is cut. fit: all of it is there, with black beside it. fill: all of it, stretched. */
export const FITS = ["crop", "fit", "fill"] as const;
export type Fit = (typeof FITS)[number];

/**
 * Fit a picture into the frame, with the engine's own filters: what is shown is what the model gets.
 *
 * Throws UserError if it is too small. `subject` names it in errors and notices.
 */
export function fitPicture(source: Image, { width, height }: Size, fit: Fit, subject: string): FittedImage {
  if (fit === "crop" || source.width * height === source.height * width) {
    return fitImage(source, height, width, subject);
  }
  const { picture, notices } = readPicture(source, height, width, subject);
  const [from, to] = [source, { width, height }].map((size) => `${size.width}x${size.height}`);
  const withNotice = (how: "fits" | "stretched") => [...notices, noticeOf("scaled", { subject, from, to, how })];
  if (fit === "fill") {
    return {
      image: toImage(resizePicture(picture, { width, height })),
      notices: withNotice("stretched"),
    };
  }
  const scale = Math.min(width / source.width, height / source.height);
  const inside = {
    width: Math.max(1, Math.round(source.width * scale)),
    height: Math.max(1, Math.round(source.height * scale)),
  };
  const small = toImage(resizePicture(picture, inside));
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  const left = Math.floor((width - inside.width) / 2);
  const top = Math.floor((height - inside.height) / 2);
  for (let y = 0; y < inside.height; y++) {
    data.set(small.data.subarray(4 * y * inside.width, 4 * (y + 1) * inside.width), 4 * ((top + y) * width + left));
  }
  return {
    image: { width, height, data },
    notices: withNotice("fits"),
  };
}

/**
 * Prepare pictures for the model: the control image, the picture that a drawing starts from, and its mask.
 * The twin of mlc_controlnet/images/prepare.py, without the decoding, which the browser does.
 */

import { MIN_SIDE } from "./constants.ts";
import { UserError } from "./errors.ts";
import { type Notice, noticeOf } from "./notices.ts";
import { type Image, type Picture, resizePicture, toGrey, toImage, toPixels } from "./picture.ts";

/** The default name of a picture in errors and notices. */
const SUBJECT = "control image";

/** A picture that fits a model. */
export interface PreparedImage {
  readonly picture: Picture;
  /** The changes that made it fit. */
  readonly notices: readonly Notice[];
}

export interface ControlImage {
  /** float32 [1, 3, H, W] in 0..1. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The changes that made it fit. */
  readonly notices: readonly Notice[];
}

/** A picture of the size that a model wants. */
export interface FittedImage {
  /** Opaque RGBA of H x W. */
  readonly image: Image;
  /** The changes that made it fit. */
  readonly notices: readonly Notice[];
}

/**
 * Turn any picture into RGB of the model's size, as the ControlNet reads it.
 *
 * Throws UserError if it is not a picture or has less than 8 pixels on a side.
 */
export function prepareImage(image: Image, height: number, width: number, subject: string = SUBJECT): ControlImage {
  const { picture, notices } = cover(readPicture(image, height, width, subject), height, width, subject);
  return { pixels: toPixels(picture), notices };
}

/**
 * Fit any picture to the size that the model wants, with the same pixels as prepareImage. A page can show what
 * the engine will read.
 *
 * Throws UserError if it is not a picture or has less than 8 pixels on a side. `subject` names it in errors and notices.
 */
export function fitImage(image: Image, height: number, width: number, subject: string = SUBJECT): FittedImage {
  const { picture, notices } = cover(readPicture(image, height, width, subject), height, width, subject);
  return { image: toImage(picture), notices };
}

/**
 * Return red, green and blue, or grey, as planes of the picture's own size. `height` and `width` are those that error
 * messages recommend.
 *
 * Transparent pixels are composited on black (no outline, no control).
 */
export function readPicture(image: Image, height: number, width: number, subject: string, channels = 3): PreparedImage {
  checkImage(image, height, width, subject);
  const { picture, transparent } = compositeOnBlack(image);
  const notices = transparent ? [noticeOf("transparency", { subject })] : [];
  return { picture: channels === 1 ? toGrey(picture) : picture, notices };
}

/** Scale a picture until it covers `height` x `width`, and crop it around its centre, with a notice of both. */
export function cover(prepared: PreparedImage, height: number, width: number, subject: string): PreparedImage {
  const { picture } = prepared;
  if (picture.width === width && picture.height === height) return prepared;
  const how = picture.width * height !== picture.height * width ? "cropped" : "covers";
  const [from, to] = [picture, { width, height }].map((size) => `${size.width}x${size.height}`);
  const notice = noticeOf("scaled", { subject, from, to, how });
  // The part of the source that stays visible.
  const scale = Math.max(width / picture.width, height / picture.height);
  const left = (picture.width - width / scale) / 2;
  const top = (picture.height - height / scale) / 2;
  const box = { left, top, right: left + width / scale, bottom: top + height / scale };
  return { picture: resizePicture(picture, { width, height }, box), notices: [...prepared.notices, notice] };
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

/** Return three planes, and whether any pixel was transparent. */
function compositeOnBlack({ width, height, data }: Image): { picture: Picture; transparent: boolean } {
  const planes = [0, 1, 2].map(() => new Uint8ClampedArray(width * height));
  let transparent = false;
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    if (alpha !== 255) transparent = true;
    for (let channel = 0; channel < 3; channel++) {
      planes[channel][i] = Math.round((data[4 * i + channel] * alpha) / 255);
    }
  }
  return { picture: { width, height, planes }, transparent };
}

/**
 * The picture that a drawing starts from, the mask of the part that is repainted, and the way back into the picture.
 *
 * The semantics are those of diffusers' StableDiffusionControlNetImg2ImgPipeline and
 * StableDiffusionControlNetInpaintPipeline, for UNets of four and of nine channels. Twin:
 * mlc_controlnet/runtime/inpainting.py.
 */

import type { FloatArray } from "./components.ts";
import { MASK_THRESHOLD } from "./constants.ts";
import { type Crop, cutOut, putBack, sizeOf } from "./crop.ts";
import { UserError } from "./errors.ts";
import { checkLatents } from "./latents.ts";
import type { Manifest } from "./manifest.ts";
import type { MaskedContent } from "./mask_options.ts";
import { fill } from "./masked_content.ts";
import { blurMask, cropAround } from "./masks.ts";
import { inpaints } from "./model_traits.ts";
import { type Notice, noticeOf } from "./notices.ts";
import { type Image, type Picture, toImage, toPixels, toPlanes } from "./picture.ts";
import { cover, type PreparedImage, readPicture } from "./prepare_image.ts";

/** Their names in error messages and notices. */
export const IMAGE = "image";
export const MASK_IMAGE = "mask image";

/** The picture that a drawing starts from, as the VAE encoder reads it, or its latents. */
export interface InitImage {
  /** float32 [1, 3, H, W] in -1..1; [1, C, h, w] if it is latent. */
  readonly pixels: FloatArray;
  /** The changes that made it fit. */
  readonly notices: readonly Notice[];
  readonly isLatent?: boolean;
}

/** A picture and a mask in the form that a denoising loop reads, and what `paste` needs afterwards. */
export interface Inpainting {
  /** float32 [1, 3, H, W] in -1..1: the picture, or its part around the mask, to start from. */
  readonly pixels: FloatArray;
  /** float32 [1, 3, H, W] in -1..1; 0 where the model repaints: for nine channels. */
  readonly maskedImage: FloatArray;
  /** float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0. */
  readonly mask: FloatArray;
  /** The whole picture, of H x W, or of its own size if there is a crop. */
  readonly original: Picture;
  /** Of the same size: the share of the drawn picture in the result, 255 for all of it. */
  readonly overlayMask: Picture;
  /** The part of `original` that is drawn; undefined: all of it. */
  readonly crop: Crop | undefined;
  /** The changes that made the two pictures fit. */
  readonly notices: readonly Notice[];
}

/**
 * Fit the picture of an img2img request to the model, as a control image is; return undefined if there is none.
 *
 * Latents, float32 [1, C, h, w] as a finished picture has them, are taken as they are.
 *
 * Throws UserError if the bundle has no VAE encoder, or `image` is neither a picture nor latents of the size.
 */
export function prepareInitImage(
  image: Image | FloatArray | null | undefined,
  manifest: Manifest,
): InitImage | undefined {
  if (image == null) return undefined;
  if (image instanceof Float32Array) {
    const latents = checkLatents(IMAGE, image, manifest, "pass latents of this size, or a picture");
    return { pixels: latents, notices: [], isLatent: true };
  }
  checkEncoder(IMAGE, manifest);
  const { height, width } = manifest.model;
  const { picture, notices } = cover(readPicture(image, height, width, IMAGE), height, width, IMAGE);
  return { pixels: centered(picture), notices };
}

/**
 * Select the part of `image` that `maskImage` shows in white; return undefined if there is no mask.
 *
 * Both pictures are scaled and cropped as a control image is. With `paddingMaskCrop`, only the part of the picture around
 * the mask is drawn, at the model's size. The mask is softened first; from its middle grey on it counts as white, and a
 * latent cell takes the mask of its upper left pixel.
 *
 * maskBlur, paddingMaskCrop, maskedContent: see mask_options.ts. Other content than the original is filled with the colours
 * around it before the VAE encodes it.
 *
 * Throws UserError if an inpainting model lacks a picture or a mask, there is a mask without a picture, the bundle has no
 * VAE encoder, or one of the two is not a picture; with `paddingMaskCrop` also if the mask is black everywhere, or its aspect
 * ratio is not the picture's.
 */
export function prepareInpainting(
  image: Image | FloatArray | null | undefined,
  maskImage: Image | null | undefined,
  manifest: Manifest,
  maskBlur = 0,
  paddingMaskCrop: number | null = null,
  maskedContent: MaskedContent = "original",
): Inpainting | undefined {
  checkGiven(image, maskImage, manifest);
  if (image == null || maskImage == null) return undefined;
  if (image instanceof Float32Array) {
    throw new UserError(IMAGE, "latents beside a mask image", "a picture", "decode them, or leave the mask out");
  }
  const { height, width } = manifest.model;
  if (paddingMaskCrop === null) {
    const original = cover(readPicture(image, height, width, IMAGE), height, width, IMAGE);
    const given = soften(readPicture(maskImage, height, width, MASK_IMAGE, 1), maskBlur);
    const mask = cover(given, height, width, MASK_IMAGE);
    const overlay = { original: original.picture, overlayMask: mask.picture, crop: undefined };
    const forModel = readByModel(original.picture, mask.picture, manifest.model.vae_scale_factor, maskedContent);
    return { ...forModel, ...overlay, notices: [...original.notices, ...mask.notices] };
  }
  const original = readPicture(image, height, width, IMAGE);
  const mask = soften(fitMask(maskImage, original.picture), maskBlur);
  const crop = cropAround(mask.picture, height, width, paddingMaskCrop);
  if (crop === undefined) {
    const wanted = "white where the model repaints";
    throw new UserError(MASK_IMAGE, "black everywhere", wanted, "paint the part in white");
  }
  const [drawn, selected] = [original, mask].map(({ picture }) => cutOut(picture, crop, height, width));
  return {
    ...readByModel(drawn, selected, manifest.model.vae_scale_factor, maskedContent),
    original: original.picture,
    overlayMask: mask.picture,
    crop,
    notices: [...original.notices, ...mask.notices, ...noticeOfSize(crop, height, width)],
  };
}

/**
 * Paste a drawn picture of H x W through the softened mask into the original, which keeps its size.
 *
 * Where the mask is black, the result has the original's pixels. This is diffusers' VaeImageProcessor.apply_overlay.
 */
export function paste(image: Image, { original, overlayMask, crop }: Inpainting): Image {
  const drawn = toPlanes(image);
  const part = crop === undefined ? drawn : putBack(drawn, crop);
  const { left, top } = crop ?? { left: 0, top: 0 };
  const planes = original.planes.map((plane, channel) => {
    const result = plane.slice();
    for (let i = 0; i < part.width * part.height; i++) {
      const place = (top + Math.floor(i / part.width)) * original.width + left + (i % part.width);
      const share = overlayMask.planes[0][place];
      result[place] = Math.round((part.planes[channel][i] * share + plane[place] * (255 - share)) / 255);
    }
    return result;
  });
  return toImage({ width: original.width, height: original.height, planes });
}

function checkGiven(
  image: Image | FloatArray | null | undefined,
  maskImage: Image | null | undefined,
  manifest: Manifest,
): void {
  const both = "a picture and a mask that is white where the model repaints";
  const given = [[IMAGE, image] as const, [MASK_IMAGE, maskImage] as const];
  for (const [subject, picture] of given) if (picture != null) checkEncoder(subject, manifest);
  for (const [subject, picture] of given) {
    if (picture == null && (inpaints(manifest) || maskImage != null)) {
      throw new UserError(subject, "none", both, "pass both, and a control image");
    }
  }
}

function checkEncoder(subject: string, manifest: Manifest): void {
  if ("vae_encoder" in manifest.components) return;
  const wanted = `none: the bundle of ${manifest.model.name} has no VAE encoder`;
  throw new UserError(subject, "one", wanted, "leave it out, or build the bundle again with the encoder");
}

/** Scale a mask to the size of its picture. Throws UserError if more than a rounding would be cropped. */
function fitMask(maskImage: Image, picture: Picture): PreparedImage {
  const mask = readPicture(maskImage, picture.height, picture.width, MASK_IMAGE, 1);
  const { width, height } = mask.picture;
  if (Math.abs(width * picture.height - height * picture.width) >= Math.max(picture.width, picture.height)) {
    const wanted = `${picture.width}x${picture.height}, the size of the picture`;
    throw new UserError(MASK_IMAGE, `${width}x${height} pixels`, wanted, "draw the mask over the picture");
  }
  return cover(mask, picture.height, picture.width, MASK_IMAGE);
}

function soften({ picture, notices }: PreparedImage, maskBlur: number): PreparedImage {
  return { picture: blurMask(picture, maskBlur), notices };
}

/** Say that a part larger than the model's size loses detail. */
function noticeOfSize(crop: Crop, height: number, width: number): Notice[] {
  const part = sizeOf(crop);
  if (part.height <= height && part.width <= width) return [];
  const [size, drawn] = [part, { width, height }].map((one) => `${one.width}x${one.height}`);
  return [noticeOf("part-enlarged", { subject: IMAGE, part: size, drawn })];
}

/** Return what the VAE encoder and the UNet read. */
function readByModel(drawn: Picture, selected: Picture, factor: number, maskedContent: MaskedContent) {
  const { width, height } = drawn;
  const repainted = Array.from(selected.planes[0], (grey) => grey >= MASK_THRESHOLD); // [H, W]
  const pixels = centered(maskedContent === "original" ? drawn : fill(drawn, selected));
  const maskedImage = centered(drawn).map((value, i) => (repainted[i % repainted.length] ? 0 : value));
  const [rows, columns] = [height / factor, width / factor];
  const mask = new Float32Array(rows * columns).map((_, cell) => {
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    return Number(repainted[factor * (row * width + column)]);
  });
  return { pixels, maskedImage, mask };
}

/** Return float32 [1, 3, H, W] in -1..1. */
function centered(picture: Picture): FloatArray {
  return toPixels(picture).map((value) => 2 * value - 1);
}

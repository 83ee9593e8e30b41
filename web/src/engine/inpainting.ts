/**
 * The further inputs of an inpainting model: a picture, and a mask that is white where the model repaints it.
 *
 * The semantics are those of diffusers' StableDiffusionControlNetInpaintPipeline with strength 1 and a UNet of nine
 * channels. Twin: mlc_controlnet/runtime/inpainting.py.
 */

import type { FloatArray } from "./components.ts";
import { MASK_THRESHOLD } from "./constants.ts";
import { UserError } from "./errors.ts";
import { inpaints, type Manifest } from "./manifest.ts";
import { type Image, prepareImage } from "./prepare_image.ts";

/** Their names in error messages and notices. */
export const IMAGE = "image";
export const MASK_IMAGE = "mask image";

export interface Inpainting {
  /** float32 [1, 3, H, W] in -1..1; 0 where the model repaints. */
  readonly maskedImage: FloatArray;
  /** float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0. */
  readonly mask: FloatArray;
  /** The changes that made the two pictures fit, one sentence each. */
  readonly notices: readonly string[];
}

/**
 * Erase the part of `image` that `maskImage` selects; return undefined for a model that does not inpaint.
 *
 * Both pictures are scaled and cropped as a control image is. A latent cell takes the mask of its upper left pixel.
 *
 * Throws UserError if an inpainting model lacks one of the two, another model gets one, or one is not a picture.
 */
export function prepareInpainting(
  image: Image | null | undefined,
  maskImage: Image | null | undefined,
  manifest: Manifest,
): Inpainting | undefined {
  const { name, height, width, vae_scale_factor } = manifest.model;
  const needed = inpaints(manifest);
  for (const [subject, picture] of [[IMAGE, image] as const, [MASK_IMAGE, maskImage] as const]) {
    if (!needed && picture != null) {
      const remedy = "leave it out, or build a bundle of an inpainting model";
      throw new UserError(subject, "one", `none: ${name} is not an inpainting model`, remedy);
    }
    if (needed && picture == null) {
      const wanted = "a picture and a mask that is white where the model repaints";
      throw new UserError(subject, "none", wanted, "pass both, and a control image");
    }
  }
  if (image == null || maskImage == null) return undefined;
  const whole = prepareImage(image, height, width, IMAGE);
  const mask = prepareImage(maskImage, height, width, MASK_IMAGE);
  const repainted = greyLevels(mask.pixels).map((grey) => Number(grey >= MASK_THRESHOLD)); // [H, W]
  const maskedImage = whole.pixels.map((value, i) => (repainted[i % repainted.length] ? 0 : 2 * value - 1));
  const [rows, columns] = [height / vae_scale_factor, width / vae_scale_factor];
  const cells = new Float32Array(rows * columns).map((_, cell) => {
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    return repainted[vae_scale_factor * (row * width + column)];
  });
  return { maskedImage, mask: cells, notices: [...whole.notices, ...mask.notices] };
}

/** Turn [3, H, W] in 0..1 into [H, W] in 0..255: ITU-R 601-2 luma in 16 bits of fraction, as Pillow computes it. */
function greyLevels(pixels: FloatArray): Uint8Array {
  const size = pixels.length / 3;
  const level = (channel: number, i: number) => Math.round(255 * pixels[channel * size + i]);
  return Uint8Array.from(
    { length: size },
    (_, i) => (19595 * level(0, i) + 38470 * level(1, i) + 7471 * level(2, i) + 0x8000) >>> 16,
  );
}

/**
 * What an inpainting model takes beside a prompt and a control image: a picture, and where it is to be repainted.
 *
 * The semantics are those of diffusers' StableDiffusionControlNetInpaintPipeline with strength 1 and a UNet of nine
 * channels. Twin: mlc_controlnet/runtime/inpainting.py.
 */

import type { FloatArray } from "./components.ts";
import { MASK_THRESHOLD } from "./constants.ts";
import { type Image, prepareControlImage } from "./control_image.ts";
import { UserError } from "./errors.ts";
import { inpaints, type Manifest } from "./manifest.ts";

/** In errors and notices. */
export const IMAGE = "image";
export const MASK_IMAGE = "mask image";

export interface Inpainting {
  /** float32 [1, 3, H, W] in -1..1, 0 where it is to be repainted. */
  readonly maskedImage: FloatArray;
  /** float32 [1, 1, h, w]: 1 where it is to be repainted, else 0. */
  readonly mask: FloatArray;
  /** What was done to make them fit. */
  readonly notices: readonly string[];
}

/**
 * Mask the picture where `maskImage` is white; undefined for a model that does not inpaint.
 *
 * Both are made to fit as a control image is. A latent cell has its upper left pixel's mask.
 *
 * Throws UserError where an inpainting model lacks one of them or another is given one, and for what is no picture.
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
      throw new UserError(subject, "one", `none: ${name} is no inpainting model`, remedy);
    }
    if (needed && picture == null) {
      const wanted = "a picture and a mask, white where it is to be repainted";
      throw new UserError(subject, "none", wanted, "pass both, and a control image");
    }
  }
  if (image == null || maskImage == null) return undefined;
  const whole = prepareControlImage(image, height, width, IMAGE);
  const mask = prepareControlImage(maskImage, height, width, MASK_IMAGE);
  const repainted = greyLevels(mask.pixels).map((grey) => Number(grey >= MASK_THRESHOLD)); // [H, W]
  const maskedImage = whole.pixels.map((value, i) => (repainted[i % repainted.length] ? 0 : 2 * value - 1));
  const [rows, columns] = [height / vae_scale_factor, width / vae_scale_factor];
  const cells = new Float32Array(rows * columns).map((_, cell) => {
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    return repainted[vae_scale_factor * (row * width + column)];
  });
  return { maskedImage, mask: cells, notices: [...whole.notices, ...mask.notices] };
}

/** [3, H, W] in 0..1 -> [H, W] in 0..255: ITU-R 601-2 luma in 16 bits of fraction, as Pillow has it. */
function greyLevels(pixels: FloatArray): Uint8Array {
  const size = pixels.length / 3;
  const level = (channel: number, i: number) => Math.round(255 * pixels[channel * size + i]);
  return Uint8Array.from(
    { length: size },
    (_, i) => (19595 * level(0, i) + 38470 * level(1, i) + 7471 * level(2, i) + 0x8000) >>> 16,
  );
}

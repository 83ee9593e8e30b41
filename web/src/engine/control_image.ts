/** The picture that conditions: from any image to what the ControlNet reads. Twin: mlc_controlnet/runtime/control_image.py. */

import { type Crop, cutOut } from "./crop.ts";
import { type Image, toPixels } from "./picture.ts";
import { type ControlImage, cover, prepareImage, readPicture } from "./prepare_image.ts";

const SUBJECT = "control image";

/**
 * Turn any picture into RGB of the model's size.
 *
 * With `crop`, the control image is that of the whole picture: it is fitted to the picture's size, and the same part is
 * cut out of it.
 *
 * Throws UserError if it is not a picture or has less than 8 pixels on a side.
 */
export function prepareControlImage(image: Image, height: number, width: number, crop?: Crop): ControlImage {
  if (crop === undefined) return prepareImage(image, height, width, SUBJECT);
  const given = readPicture(image, height, width, SUBJECT);
  const whole = cover(given, crop.picture.height, crop.picture.width, SUBJECT);
  return { pixels: toPixels(cutOut(whole.picture, crop, height, width)), notices: whole.notices };
}

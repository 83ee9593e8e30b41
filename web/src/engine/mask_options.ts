/**
 * The checks of the options for pictures that a drawing starts from.
 *
 * Twin: mlc_controlnet/runtime/mask_options.py.
 */

import { MASKED_CONTENTS, MAX_MASK_BLUR } from "./constants.ts";
import { checkOneOf, UserError } from "./errors.ts";

/** What a repainted part starts from. */
export type MaskedContent = (typeof MASKED_CONTENTS)[number];

/**
 * Return `value` if it is a number from 0 to 1; throw UserError otherwise.
 *
 * strength: the share of the steps that run on the noised picture. 0 keeps the picture, 1 starts from noise alone.
 */
export function checkStrength(subject: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value <= 1) return value;
  throw new UserError(subject, String(value), "a number from 0 to 1", "0 keeps the picture, 1 draws a new one");
}

/**
 * Return `value` if it is a number from 0 to MAX_MASK_BLUR; throw UserError otherwise.
 *
 * maskBlur: the standard deviation, in pixels of the mask, of the Gaussian that softens the mask's edge.
 */
export function checkMaskBlur(subject: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value <= MAX_MASK_BLUR) return value;
  const wanted = `a number of pixels from 0 to ${MAX_MASK_BLUR}`;
  throw new UserError(subject, String(value), wanted, "4 softens an edge, 0 leaves it sharp");
}

/**
 * Return `value` if it is null or an integer of 0 or more; throw UserError otherwise.
 *
 * paddingMaskCrop: null draws the whole picture. A number draws only the part around the mask, with this many pixels of
 * the picture on each side, at the model's full size, and pastes it back.
 */
export function checkPaddingMaskCrop(subject: string, value: unknown): number | null {
  if (value === null || (Number.isInteger(value) && (value as number) >= 0)) return value as number | null;
  const wanted = "an integer of 0 or more pixels";
  throw new UserError(subject, String(value), wanted, "32 is usual; leave it out to draw the whole picture");
}

/**
 * Return `value` if it is one of MASKED_CONTENTS; throw UserError otherwise.
 *
 * maskedContent: what the part that the mask selects starts from, see masked_content.ts.
 */
export function checkMaskedContent(subject: string, value: unknown): MaskedContent {
  checkOneOf(subject, value, MASKED_CONTENTS);
  return value as MaskedContent;
}

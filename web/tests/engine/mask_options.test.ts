import { expect, test } from "vitest";
import { checkMaskBlur, checkPaddingMaskCrop, checkStrength } from "../../src/engine/mask_options";

test.each([
  [checkStrength, 0],
  [checkStrength, 1],
  [checkMaskBlur, 4.5],
  [checkPaddingMaskCrop, null],
  [checkPaddingMaskCrop, 0],
])("%o keeps %o", (check, value) => {
  expect(check("option", value)).toBe(value);
});

test.each([
  ...[-0.1, 1.1, Number.NaN, "half", null].map((value) => [checkStrength, value, "a number from 0 to 1"] as const),
  ...[-1, Number.NaN, 257].map((value) => [checkMaskBlur, value, "a number of pixels from 0 to 256"] as const),
  ...[-1, 3.5, "32"].map((value) => [checkPaddingMaskCrop, value, "an integer of 0 or more pixels"] as const),
])("%o refuses %o", (check, value, wanted) => {
  expect(() => check("the option", value)).toThrow(`the option: got ${value}, wanted ${wanted}`);
});

import { expect, test } from "vitest";
import { blurMask, cropAround } from "../../src/engine/masks";
import { distance, golden, maskOf } from "./masks_fixture";

test.each(golden.blurred)("the mask $mask is blurred by $mask_blur as in Python", ({ mask, mask_blur, levels }) => {
  // Python's sum is the same in another order: at most one level where it falls on a half.
  expect(distance(blurMask(maskOf(mask), mask_blur), levels)).toBeLessThanOrEqual(1);
});

test.each(golden.around)("the part around $mask with $padding pixels for $size is Python's", (given) => {
  const [height, width] = given.size;
  const crop = cropAround(maskOf(given.mask), height, width, given.padding);
  expect(crop).toEqual({
    left: given.box[0],
    top: given.box[1],
    right: given.box[2],
    bottom: given.box[3],
    picture: { width: 40, height: 30 },
  });
});

test("a black mask selects nothing", () => {
  const black = maskOf([0, 0, 0, 0]);
  expect(cropAround(black, 16, 16, 4)).toBeUndefined();
  expect(blurMask(black, 4)).toBe(black);
});

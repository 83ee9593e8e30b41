import { expect, test } from "vitest";
import { fill, maskLatents } from "../../src/engine/masked_content";
import { blurMask } from "../../src/engine/masks";
import { distance, golden, maskOf, picture } from "./masks_fixture";

test.each(golden.filled)("the part $mask, blurred by $mask_blur, is filled as in Python", (given) => {
  const filled = fill(picture(), blurMask(maskOf(given.mask), given.mask_blur));
  expect(distance(filled, given.pixels)).toBeLessThanOrEqual(1); // one level where a sum falls on a half
  expect(distance(picture(), given.pixels)).toBeGreaterThan(50);
});

test("a black mask keeps the picture", () => {
  expect(fill(picture(), maskOf([0, 0, 0, 0]))).toEqual(picture());
});

test("latent content takes the place of the part's latents only", () => {
  const [latents, noise, mask] = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8), Float32Array.of(0, 1)];
  const of = (content: Parameters<typeof maskLatents>[3]) => [...maskLatents(latents, noise, mask, content)];
  expect(of("latent noise")).toEqual([1, 6, 3, 8]);
  expect(of("latent nothing")).toEqual([1, 0, 3, 0]);
  expect(of("fill")).toEqual([...latents]);
  expect(of("original")).toEqual([...latents]);
});

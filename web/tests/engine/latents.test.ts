import { expect, test } from "vitest";
import { blendLatents, firstStep, type UpscaleMode, upscaleLatents } from "../../src/engine/latents";
import { golden, ramp } from "./masks_fixture";

test.each(golden.upscaled)("latents grow to $size by $mode as in Python", ({ mode, size, latents }) => {
  const [height, width] = size;
  const ours = upscaleLatents(ramp(24), { height: 3, width: 4 }, { height, width }, mode as UpscaleMode);
  expect(ours).toHaveLength(latents.length);
  for (const [i, value] of latents.entries()) expect(ours[i]).toBeCloseTo(value, 5);
});

test("an unknown mode is refused", () => {
  const size = { height: 3, width: 4 };
  expect(() => upscaleLatents(ramp(24), size, size, "lanczos" as UpscaleMode)).toThrow(
    "latent upscale mode: got 'lanczos', wanted one of bilinear, nearest, nearest-exact, bicubic; choose one of these",
  );
});

test.each(golden.first_steps)("%i steps with strength %f begin at step %i", (steps, strength, first) => {
  expect(firstStep(steps, strength)).toBe(first);
});

test("the mask chooses between the drawn and the kept latents, in every channel", () => {
  const x = Float32Array.of(1, 2, 3, 4);
  const kept = Float32Array.of(10, 20, 30, 40);
  expect([...blendLatents(x, kept, Float32Array.of(0, 1))]).toEqual([10, 2, 30, 4]);
});

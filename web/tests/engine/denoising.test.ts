import { expect, test } from "vitest";
import { addNoise, checkFinite, guide, toPicture } from "../../src/engine/denoising";

test("guidance with one output is that output", () => {
  expect([...guide([Float32Array.of(1, 2)], 7)]).toEqual([1, 2]);
});

test("guidance moves away from the negative prompt", () => {
  expect([...guide([Float32Array.of(1, 0), Float32Array.of(2, -1)], 3)]).toEqual([4, -3]);
});

test("guidance is rescaled as diffusers does it", () => {
  // rescale_noise_cfg(n + 7.5 * (p - n), p, 0.7) of diffusers 0.42.1, in float64
  const wanted = [3.1359275756766527, -2.766994919714694, -3.4126270676481223, 10.699047022896815];
  const guided = guide([Float32Array.of(1, 0, 2, -1), Float32Array.of(2, -1, 0.5, 3)], 7.5, 0.7);
  for (const [i, value] of guided.entries()) expect(value).toBeCloseTo(wanted[i], 12);
});

test("guidance without any deviation is left as it is", () => {
  expect([...guide([Float32Array.of(0, 0), Float32Array.of(3, 3)], 2, 0.7)]).toEqual([6, 6]);
});

test("latents are noised as the row says", () => {
  const row = { signalScale: 0.5, noiseScale: 2 } as Parameters<typeof addNoise>[0];
  expect([...addNoise(row, Float32Array.of(4, 6), Float32Array.of(1, -1))]).toEqual([4, 1]);
});

test("numbers that are not finite are counted", () => {
  expect(() => checkFinite("unet", Float32Array.of(1, Number.NaN, Infinity), "step 1 of 2")).toThrow(
    "unet, step 1 of 2: got NaN or infinity in 2 of 3 numbers",
  );
});

test("a picture is clipped and rounded, planes to pixels", () => {
  const { data } = toPicture([-1, 0, 0.5, 2, 1, 0.2], 1, 2);
  expect([...data]).toEqual([0, 128, 255, 255, 0, 255, 51, 255]);
});

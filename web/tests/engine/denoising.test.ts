import { expect, test } from "vitest";
import { addNoise, checkFinite, guide, toPicture } from "../../src/engine/denoising";

test("guidance with one output is that output", () => {
  expect([...guide([Float32Array.of(1, 2)], 7)]).toEqual([1, 2]);
});

test("guidance moves away from the negative prompt", () => {
  expect([...guide([Float32Array.of(1, 0), Float32Array.of(2, -1)], 3)]).toEqual([4, -3]);
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

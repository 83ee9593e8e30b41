import { expect, test } from "vitest";
import { prepareInpainting } from "../../src/engine/inpainting";
import type { Image } from "../../src/engine/prepare_image";
import { HEIGHT, makeInpaintingManifest, makeManifest, WIDTH } from "./sample_bundle";

const manifest = makeInpaintingManifest();

/** Each pixel's colour by its column and row. */
function draw(color: (x: number, y: number) => [number, number, number]): Image {
  const data = new Uint8ClampedArray(4 * WIDTH * HEIGHT).fill(255);
  for (let i = 0; i < WIDTH * HEIGHT; i++) data.set(color(i % WIDTH, Math.floor(i / WIDTH)), 4 * i);
  return { width: WIDTH, height: HEIGHT, data };
}

const picture = draw((x, y) => [x, y, 255]);
const leftHalf = (grey: number) => draw((x) => (x < WIDTH / 2 ? [grey, grey, grey] : [0, 0, 0]));

function prepare(image: Image, maskImage: Image) {
  const inpainting = prepareInpainting(image, maskImage, manifest);
  if (inpainting === undefined) throw new Error("the model inpaints");
  return inpainting;
}

test("white is repainted and black is kept", () => {
  const { maskedImage, notices } = prepare(picture, leftHalf(255));
  const pixel = (channel: number, x: number, y: number) => maskedImage[(channel * HEIGHT + y) * WIDTH + x];
  expect(maskedImage).toHaveLength(3 * HEIGHT * WIDTH);
  for (const channel of [0, 1, 2]) expect(pixel(channel, WIDTH / 2 - 1, 3)).toBe(0);
  expect(pixel(0, 20, 3)).toBeCloseTo((2 * 20) / 255 - 1);
  expect(pixel(1, 20, 3)).toBeCloseTo((2 * 3) / 255 - 1);
  expect(pixel(2, 20, 3)).toBe(1);
  expect(notices).toEqual([]);
});

test("a cell of the mask is its upper left pixel", () => {
  expect([...prepare(picture, leftHalf(255)).mask]).toEqual([1, 1, 0, 1, 1, 0]);
  const corner = draw((x, y) => (x >= 16 && y >= 8 ? [255, 255, 255] : [0, 0, 0]));
  expect([...prepare(picture, corner).mask]).toEqual([0, 0, 0, 0, 0, 1]);
});

test.each([
  [127, 0],
  [128, 1],
])("a mask of grey %i is %i", (grey, repainted) => {
  expect(prepare(picture, leftHalf(grey)).mask[0]).toBe(repainted);
});

test("a coloured mask counts by its brightness", () => {
  expect(
    new Set(
      prepare(
        picture,
        draw(() => [255, 255, 0]),
      ).mask,
    ),
  ).toEqual(new Set([1]));
  expect(
    new Set(
      prepare(
        picture,
        draw(() => [0, 0, 255]),
      ).mask,
    ),
  ).toEqual(new Set([0]));
});

test("null is no picture", () => {
  expect(prepareInpainting(null, null, makeManifest())).toBeUndefined();
  expect(() => prepareInpainting(picture, null, manifest)).toThrow("mask image: got none, wanted a picture and a mask");
});

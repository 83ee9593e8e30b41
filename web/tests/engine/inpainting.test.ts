import { expect, test } from "vitest";
import { prepareControlImage } from "../../src/engine/control_image";
import { cutOut } from "../../src/engine/crop";
import { type Inpainting, paste, prepareInitImage, prepareInpainting } from "../../src/engine/inpainting";
import { blurMask } from "../../src/engine/masks";
import { type Image, toImage, toPixels, toPlanes } from "../../src/engine/picture";
import { distance, golden, MODEL, maskOf, PICTURE, picture as photoPlanes } from "./masks_fixture";
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

test("the initial picture is scaled to -1..1", () => {
  const init = prepareInitImage(picture, manifest);
  expect(init?.pixels).toHaveLength(3 * HEIGHT * WIDTH);
  expect(init?.pixels[5]).toBeCloseTo((2 * 5) / 255 - 1);
  expect(init?.pixels).toEqual(prepare(picture, leftHalf(255)).pixels);
  expect(prepareInitImage(null, manifest)).toBeUndefined();
  expect(() => prepareInitImage(picture, makeManifest())).toThrow(
    "image: got one, wanted none: the bundle of circles has",
  );
});

const photo = toImage(photoPlanes());

/** Black with a white part. */
function paint(box: [top: number, left: number, bottom: number, right: number]): Image {
  const { width, height, planes } = maskOf(box);
  return toImage({ width, height, planes: [planes[0], planes[0], planes[0]] });
}

test("only the part around the mask is drawn, and the same part of the control image is read", () => {
  const prepared = prepareInpainting(photo, paint([8, 10, 18, 25]), manifest, 2, 3);
  if (prepared?.crop === undefined) throw new Error("there is a crop");
  const drawn = cutOut(photoPlanes(), prepared.crop, HEIGHT, WIDTH);
  expect(prepared.pixels).toEqual(toPixels(drawn).map((value) => 2 * value - 1));
  expect(prepared.original).toEqual(photoPlanes());
  expect(prepared.overlayMask).toEqual(blurMask(maskOf([8, 10, 18, 25]), 2));
  expect(new Set(prepared.mask)).toEqual(new Set([0, 1]));
  expect(prepareControlImage(photo, HEIGHT, WIDTH, prepared.crop)).toEqual({ pixels: toPixels(drawn), notices: [] });
});

test("a drawn part is pasted through the soft mask as in Python, to the last bit", () => {
  const { box, mask, mask_blur, pixels } = golden.pasted;
  const [left, top, right, bottom] = box;
  const inpainting: Inpainting = {
    pixels: new Float32Array(),
    maskedImage: new Float32Array(),
    mask: new Float32Array(),
    original: photoPlanes(),
    overlayMask: blurMask(maskOf(mask), mask_blur),
    crop: { left, top, right, bottom, picture: PICTURE },
    notices: [],
  };
  expect(distance(toPlanes(paste(toImage(photoPlanes(MODEL)), inpainting)), pixels)).toBe(0);
});

test("a black mask returns the input", () => {
  const red = draw(() => [255, 0, 0]);
  expect(paste(red, prepare(picture, leftHalf(0)))).toEqual(picture);
  expect(paste(red, prepare(picture, leftHalf(255))).data.slice(0, 4)).toEqual(Uint8ClampedArray.of(255, 0, 0, 255));
});

test("a part cannot be drawn without a mask that shows it", () => {
  expect(() => prepareInpainting(photo, paint([0, 0, 0, 0]), manifest, 0, 3)).toThrow(
    "mask image: got black everywhere, wanted white where the model repaints; paint the part in white",
  );
  expect(() => prepareInpainting(photo, leftHalf(255), manifest, 0, 3)).toThrow(
    "mask image: got 24x16 pixels, wanted 40x30, the size of the picture; draw the mask over the picture",
  );
});

test("a part that is larger than the model is reported", () => {
  expect(prepareInpainting(photo, paint([0, 0, 30, 40]), manifest, 0, 3)?.notices).toMatchObject([
    { text: "image: the part around the mask, 40x30, is drawn at 24x16 and enlarged" },
  ]);
});

import { describe, expect, test } from "vitest";
import type { Image } from "../../src/engine/picture";
import { prepareImage } from "../../src/engine/prepare_image";

/** An opaque grey picture; `shade` gives each pixel's value. */
function grey(width: number, height: number, shade: (x: number, y: number) => number): Image {
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.fill(shade(i % width, Math.floor(i / width)), 4 * i, 4 * i + 3);
  return { width, height, data };
}

/** The first channel as rows of 0..255. */
function rows(pixels: Float32Array, width: number, height: number): number[][] {
  return Array.from({ length: height }, (_, y) =>
    Array.from(pixels.subarray(y * width, (y + 1) * width), (value) => Math.round(255 * value)),
  );
}

test("a picture of the right size is only scaled to 0..1, height before width", () => {
  const { pixels, notices } = prepareImage(
    grey(16, 8, (x, y) => 10 * y + x),
    8,
    16,
  );
  expect(rows(pixels, 16, 8)[3]).toEqual(Array.from({ length: 16 }, (_, x) => 30 + x));
  expect(pixels.length).toBe(3 * 8 * 16);
  expect(notices).toEqual([]);
});

test("colours go to three planes", () => {
  const image = grey(8, 8, () => 0);
  image.data.set([255, 51, 102], 0);
  const { pixels } = prepareImage(image, 8, 8);
  expect([pixels[0], pixels[64], pixels[128]].map((value) => Math.round(255 * value))).toEqual([255, 51, 102]);
});

test("transparency is composited on black, with a notice", () => {
  const image = grey(8, 8, () => 200);
  image.data[3] = 0;
  image.data[7] = 128;
  const { pixels, notices } = prepareImage(image, 8, 8);
  expect(rows(pixels, 8, 8)[0].slice(0, 3)).toEqual([0, 100, 200]);
  expect(notices).toMatchObject([{ text: "control image: its transparency was composited on black" }]);
});

describe("a picture of another size", () => {
  test("of the same proportions is scaled, with a notice", () => {
    const { pixels, notices } = prepareImage(
      grey(16, 16, (x) => (x < 8 ? 0 : 255)),
      8,
      8,
    );
    expect(notices).toMatchObject([{ text: "control image: 16x16 was scaled to cover 8x8" }]);
    const [row] = rows(pixels, 8, 8);
    expect([row[0], row[7]]).toEqual([0, 255]);
  });

  test("of other proportions is never stretched: its centre is cut out", () => {
    // 32 x 8, its middle 8 x 8 white: exactly that stays.
    const wide = grey(32, 8, (x) => (x >= 12 && x < 20 ? 255 : 0));
    const { pixels, notices } = prepareImage(wide, 8, 8);
    expect(notices).toMatchObject([
      { text: "control image: 32x8 was scaled to cover 8x8 and cropped around its centre" },
    ]);
    expect(rows(pixels, 8, 8).flat()).toEqual(Array(64).fill(255));
  });

  test("that is tall keeps its middle too", () => {
    const tall = grey(8, 32, (_, y) => (y >= 12 && y < 20 ? 255 : 0));
    expect(rows(prepareImage(tall, 8, 8).pixels, 8, 8).flat()).toEqual(Array(64).fill(255));
  });

  test("agrees with Pillow", () => {
    // python -c "from PIL import Image, ImageOps; import numpy as np
    // i = Image.fromarray((np.add.outer(np.arange(24)**2, 7*np.arange(40)) % 256).astype('uint8'))
    // print(np.asarray(ImageOps.fit(i, (12, 10), Image.Resampling.LANCZOS))[[0, 4, 9]].tolist())"
    const { pixels } = prepareImage(
      grey(40, 24, (x, y) => (y * y + 7 * x) % 256),
      10,
      12,
    );
    const result = rows(pixels, 12, 10);
    const pillow = [
      [45, 62, 79, 95, 112, 129, 146, 163, 179, 196, 210, 233],
      [147, 172, 195, 221, 215, 210, 155, 82, 17, 28, 59, 82],
      [70, 99, 65, 62, 80, 94, 115, 146, 162, 185, 201, 219],
    ];
    const differences = [0, 4, 9].flatMap((row, i) => pillow[i].map((value, x) => Math.abs(result[row][x] - value)));
    expect(Math.max(...differences)).toBeLessThanOrEqual(1);
  });
});

test.each([
  [1, 1],
  [7, 100],
])("%dx%d pixels are refused", (width, height) => {
  expect(() =>
    prepareImage(
      grey(width, height, () => 0),
      128,
      128,
    ),
  ).toThrow(`control image: got ${width}x${height} pixels, wanted 8x8 at least; draw one of 128x128`);
});

test("bytes that are no picture are refused", () => {
  expect(() => prepareImage({ width: 8, height: 8, data: new Uint8ClampedArray(3) }, 8, 8)).toThrow(
    "control image: got 8x8 with 3 bytes, wanted RGBA, four bytes per pixel",
  );
});

import { expect, test } from "vitest";
import {
  drawShape,
  EMPTY,
  invert,
  moveShape,
  type PictureShape,
  type Point,
  type Ring,
  type Stroke,
  strokeWidth,
  traceRing,
} from "../../src/page/outline";

const WIDTH = 40;
const HEIGHT = 30;
const ring: Ring = { center: { x: 16.5, y: 10.5 }, radius: 8 };
const look = { edges: false, detail: 0.5, inverted: false };

/** The red of pixel (x, y). */
function pixel(image: { width: number; data: Uint8ClampedArray }, x: number, y: number): number {
  return image.data[4 * (y * image.width + x)];
}

test("a ring is white on its line and black elsewhere", () => {
  const image = drawShape({ kind: "ring", ring }, WIDTH, HEIGHT);
  expect([image.width, image.height]).toEqual([WIDTH, HEIGHT]);
  expect(pixel(image, 16 + 8, 10)).toBe(255);
  expect(pixel(image, 16, 10 + 8)).toBe(255);
  expect(pixel(image, 16, 10)).toBe(0);
  expect(pixel(image, 16 + 11, 10)).toBe(0);
});

test("a ring's line is as wide as in the training pictures: one to two pixels", () => {
  const { data } = drawShape({ kind: "ring", ring }, WIDTH, HEIGHT);
  let white = 0;
  for (let i = 0; i < data.length; i += 4) white += data[i] / 255;
  const width = white / (2 * Math.PI * ring.radius);
  expect(width).toBeGreaterThan(1);
  expect(width).toBeLessThan(2);
});

test("every pixel is grey and opaque", () => {
  const { data } = drawShape({ kind: "ring", ring }, WIDTH, HEIGHT);
  for (let i = 0; i < data.length; i += 4) {
    expect([data[i + 1], data[i + 2], data[i + 3]]).toEqual([data[i], data[i], 255]);
  }
});

/** Across, then down. */
const corner: Stroke = {
  points: [
    { x: 5.5, y: 5.5 },
    { x: 25.5, y: 5.5 },
    { x: 25.5, y: 20.5 },
  ],
  width: 1.5,
  erases: false,
};

test("strokes follow their points, corners included", () => {
  const image = drawShape({ kind: "strokes", strokes: [corner] }, WIDTH, HEIGHT);
  expect([pixel(image, 15, 5), pixel(image, 25, 5), pixel(image, 25, 15)]).toEqual([255, 255, 255]);
  expect(pixel(image, 15, 15)).toBe(0);
});

test("the eraser takes what was drawn before it, a sixteenth of the board wide, and nothing that is drawn after", () => {
  const rubbed: Stroke = {
    points: [{ x: 15.5, y: 5.5 }],
    width: strokeWidth(true, { width: WIDTH, height: HEIGHT }),
    erases: true,
  };
  const erased = drawShape({ kind: "strokes", strokes: [corner, rubbed] }, WIDTH, HEIGHT);
  expect([13, 14, 15, 16, 17].map((x) => pixel(erased, x, 5))).toEqual([255, 64, 0, 64, 255]);
  const again = drawShape({ kind: "strokes", strokes: [rubbed, corner] }, WIDTH, HEIGHT);
  expect(pixel(again, 15, 5)).toBe(255);
});

test("a ring that was traced looks like the ring", () => {
  const round = drawShape({ kind: "ring", ring }, WIDTH, HEIGHT);
  const traced = drawShape({ kind: "strokes", strokes: [traceRing(ring)] }, WIDTH, HEIGHT);
  const difference = round.data.map((value, i) => Math.abs(value - traced.data[i]));
  expect(Math.max(...difference)).toBeLessThanOrEqual(3);
});

test("an empty board is black", () => {
  const { data } = drawShape(EMPTY, 4, 4);
  expect([...data.subarray(0, 8)]).toEqual([0, 0, 0, 255, 0, 0, 0, 255]);
});

/** A picture of one grey on a board of its size. */
function greyPicture(grey: number, strokes: readonly Stroke[]): PictureShape {
  const picture = { width: WIDTH, height: HEIGHT, data: new Uint8ClampedArray(4 * WIDTH * HEIGHT).fill(grey) };
  return { kind: "picture", source: picture, fitted: { image: picture, notices: [] }, look, picture, strokes };
}

test("a picture without strokes is the control image", () => {
  const shape = greyPicture(100, []);
  expect(drawShape(shape, WIDTH, HEIGHT)).toBe(shape.picture);
});

test("strokes lie on the picture, which itself stays as it was", () => {
  const shape = greyPicture(100, [
    { points: [{ x: 1.5, y: 1.5 }], width: 2, erases: false },
    { points: [{ x: 6.5, y: 6.5 }], width: 2, erases: true },
  ]);
  const { data } = drawShape(shape, WIDTH, HEIGHT);
  const grey = (x: number, y: number) => data[4 * (y * WIDTH + x)];
  expect([grey(1, 1), grey(6, 6), grey(12, 12)]).toEqual([255, 0, 100]);
  expect(shape.picture.data.every((value) => value === 100)).toBe(true);
});

test("rings and strokes stay whole and in the middle on a board of another size and shape", () => {
  const [from, to] = [
    { width: 10, height: 10 },
    { width: 60, height: 40 },
  ];
  const dots = (...points: Point[]) => points.map((point) => ({ points: [point], width: 1.5, erases: false }));
  expect(moveShape({ kind: "strokes", strokes: dots({ x: 5, y: 5 }, { x: 0, y: 10 }) }, from, to)).toEqual({
    kind: "strokes",
    strokes: dots({ x: 30, y: 20 }, { x: 10, y: 40 }),
  });
  const small = { center: { x: 5, y: 4 }, radius: 2 };
  expect(moveShape({ kind: "ring", ring: small }, from, to)).toEqual({
    kind: "ring",
    ring: { center: { x: 30, y: 16 }, radius: 8 },
  });
});

test("inverting exchanges black and white and keeps transparency", () => {
  const picture = { width: 1, height: 1, data: Uint8ClampedArray.of(0, 255, 100, 7) };
  expect([...invert(picture).data]).toEqual([255, 0, 155, 7]);
});

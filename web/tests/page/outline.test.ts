import { expect, test } from "vitest";
import { drawShape, EMPTY, invert, moveShape, type Ring } from "../../src/page/outline";

const WIDTH = 40;
const HEIGHT = 30;
const ring: Ring = { center: { x: 16.5, y: 10.5 }, radius: 8 };

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

test("strokes follow their points, corners included", () => {
  const corner = [
    { x: 5.5, y: 5.5 },
    { x: 25.5, y: 5.5 },
    { x: 25.5, y: 20.5 },
  ];
  const image = drawShape({ kind: "strokes", strokes: [corner] }, WIDTH, HEIGHT);
  expect([pixel(image, 15, 5), pixel(image, 25, 5), pixel(image, 25, 15)]).toEqual([255, 255, 255]);
  expect(pixel(image, 15, 15)).toBe(0);
});

test("an empty board is black", () => {
  const { data } = drawShape(EMPTY, 4, 4);
  expect([...data.subarray(0, 8)]).toEqual([0, 0, 0, 255, 0, 0, 0, 255]);
});

test("a picture stays as it is, whatever its size", () => {
  const picture = { width: 2, height: 1, data: Uint8ClampedArray.of(1, 2, 3, 4, 5, 6, 7, 8) };
  const look = { edges: false, detail: 0.5, inverted: false };
  expect(drawShape({ kind: "picture", source: picture, look, picture }, WIDTH, HEIGHT)).toBe(picture);
});

test("rings and strokes stay whole and in the middle on a board of another size and shape", () => {
  const [from, to] = [
    { width: 10, height: 10 },
    { width: 60, height: 40 },
  ];
  const strokes = [[{ x: 5, y: 5 }], [{ x: 0, y: 10 }]];
  expect(moveShape({ kind: "strokes", strokes }, from, to)).toEqual({
    kind: "strokes",
    strokes: [[{ x: 30, y: 20 }], [{ x: 10, y: 40 }]],
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

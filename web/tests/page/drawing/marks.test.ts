import { expect, test } from "vitest";
import { invert } from "../../../src/page/annotators/annotate";
import { PASS_THROUGH } from "../../../src/page/annotators/annotation";
import { drawShape, EMPTY, moveShape, type PictureShape } from "../../../src/page/drawing/control_shape";
import {
  blackImage,
  drawStroke,
  fromHex,
  type Point,
  type Ring,
  type Stroke,
  toHex,
  traceRing,
} from "../../../src/page/drawing/marks";

const WIDTH = 40;
const HEIGHT = 30;
const ring: Ring = { center: { x: 16.5, y: 10.5 }, radius: 8 };
const SIZE = { width: WIDTH, height: HEIGHT };

/** The red of pixel (x, y). */
function pixel(image: { width: number; data: Uint8ClampedArray }, x: number, y: number): number {
  return image.data[4 * (y * image.width + x)];
}

test("a ring is white on its line and black elsewhere", () => {
  const image = drawShape({ kind: "ring", ring }, SIZE);
  expect([image.width, image.height]).toEqual([WIDTH, HEIGHT]);
  expect(pixel(image, 16 + 8, 10)).toBe(255);
  expect(pixel(image, 16, 10 + 8)).toBe(255);
  expect(pixel(image, 16, 10)).toBe(0);
  expect(pixel(image, 16 + 11, 10)).toBe(0);
});

test("a ring's line is as wide as in the training pictures: one to two pixels", () => {
  const { data } = drawShape({ kind: "ring", ring }, SIZE);
  let white = 0;
  for (let i = 0; i < data.length; i += 4) white += data[i] / 255;
  const width = white / (2 * Math.PI * ring.radius);
  expect(width).toBeGreaterThan(1);
  expect(width).toBeLessThan(2);
});

test("every pixel is grey and opaque", () => {
  const { data } = drawShape({ kind: "ring", ring }, SIZE);
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
  const image = drawShape({ kind: "strokes", strokes: [corner] }, SIZE);
  expect([pixel(image, 15, 5), pixel(image, 25, 5), pixel(image, 25, 15)]).toEqual([255, 255, 255]);
  expect(pixel(image, 15, 15)).toBe(0);
});

test("the eraser takes what was drawn before it, and nothing that is drawn after", () => {
  const rubbed: Stroke = {
    points: [{ x: 15.5, y: 5.5 }],
    width: WIDTH / 16,
    erases: true,
  };
  const erased = drawShape({ kind: "strokes", strokes: [corner, rubbed] }, SIZE);
  expect([13, 14, 15, 16, 17].map((x) => pixel(erased, x, 5))).toEqual([255, 64, 0, 64, 255]);
  const again = drawShape({ kind: "strokes", strokes: [rubbed, corner] }, SIZE);
  expect(pixel(again, 15, 5)).toBe(255);
});

test("a ring that was traced looks like the ring", () => {
  const round = drawShape({ kind: "ring", ring }, SIZE);
  const traced = drawShape({ kind: "strokes", strokes: [traceRing(ring)] }, SIZE);
  const difference = round.data.map((value, i) => Math.abs(value - traced.data[i]));
  expect(Math.max(...difference)).toBeLessThanOrEqual(3);
});

test("an empty board is black", () => {
  const { data } = drawShape(EMPTY, { width: 4, height: 4 });
  expect([...data.subarray(0, 8)]).toEqual([0, 0, 0, 255, 0, 0, 0, 255]);
});

/** A picture on a board of its size. */
function pictureShape(strokes: readonly Stroke[]): PictureShape {
  return { kind: "picture", source: blackImage(4, 4), fit: "crop", annotation: PASS_THROUGH, strokes };
}

const grey = { width: WIDTH, height: HEIGHT, data: new Uint8ClampedArray(4 * WIDTH * HEIGHT).fill(100) };

test("a picture without strokes is the control image", () => {
  expect(drawShape(pictureShape([]), SIZE, grey)).toBe(grey);
});

test("strokes lie on the picture, which itself stays as it was", () => {
  const shape = pictureShape([
    { points: [{ x: 1.5, y: 1.5 }], width: 2, erases: false },
    { points: [{ x: 6.5, y: 6.5 }], width: 2, erases: true },
  ]);
  const drawn = drawShape(shape, SIZE, grey);
  expect([pixel(drawn, 1, 1), pixel(drawn, 6, 6), pixel(drawn, 12, 12)]).toEqual([255, 0, 100]);
  expect(grey.data.every((value) => value === 100)).toBe(true);
});

test("a pen's pressure narrows a line, point by point", () => {
  const image = blackImage(WIDTH, HEIGHT);
  const points = [
    { x: 5, y: 15.5 },
    { x: 35, y: 15.5 },
  ];
  drawStroke(image, { points, width: 9, erases: false, pressures: [1, 0.2] });
  const height = (x: number) =>
    Array.from({ length: HEIGHT }, (_, y) => pixel(image, x, y)).filter((v) => v > 0).length;
  expect(height(6)).toBeGreaterThanOrEqual(9);
  expect(height(34)).toBeLessThanOrEqual(4);
});

test("a colour that has a meaning is drawn without colours in between", () => {
  const image = blackImage(WIDTH, HEIGHT);
  drawStroke(image, { points: [{ x: 12.3, y: 9.6 }], width: 7.5, erases: false, color: [120, 7, 200] });
  const colors = new Set(Array.from({ length: WIDTH * HEIGHT }, (_, i) => image.data.slice(4 * i, 4 * i + 3).join()));
  expect(colors).toEqual(new Set(["0,0,0", "120,7,200"]));
});

test("rings and strokes stay whole and in the middle on a board of another size and shape", () => {
  const [from, to] = [
    { width: 10, height: 10 },
    { width: 60, height: 40 },
  ];
  const dots = (width: number, ...points: Point[]) =>
    points.map((point) => ({ points: [point], width, erases: false }));
  expect(moveShape({ kind: "strokes", strokes: dots(1.5, { x: 5, y: 5 }, { x: 0, y: 10 }) }, from, to)).toEqual({
    kind: "strokes",
    strokes: dots(6, { x: 30, y: 20 }, { x: 10, y: 40 }),
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

test("a filled line paints what it encloses, with hard edges, and leaves out a hole", () => {
  const image = blackImage(16, 12);
  const square = (from: number, to: number) => [
    { x: from, y: from },
    { x: to, y: from },
    { x: to, y: to },
    { x: from, y: to },
    { x: from, y: from },
  ];
  const points = [...square(1, 11), ...square(4, 8), { x: 1, y: 1 }];
  drawStroke(image, { points, width: 0.01, erases: false, isFilled: true, color: [6, 230, 230] });
  const at = (x: number, y: number) => [...image.data.subarray(4 * (16 * y + x), 4 * (16 * y + x) + 3)];
  expect([at(2, 2), at(10, 10), at(3, 7)]).toEqual(Array(3).fill([6, 230, 230]));
  expect([at(5, 5), at(12, 5), at(0, 0), at(15, 11)]).toEqual(Array(4).fill([0, 0, 0]));
});

test("a colour survives the browser's colour field", () => {
  expect(toHex([230, 6, 50])).toBe("#e60632");
  expect(fromHex("#e60632")).toEqual([230, 6, 50]);
});

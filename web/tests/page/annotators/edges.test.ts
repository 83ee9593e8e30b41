import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { findEdges, isOutline } from "../../../src/page/annotators/edges";
import { drawShape } from "../../../src/page/drawing/control_shape";

const WIDTH = 48;
const HEIGHT = 40;
const CENTER = { x: 22, y: 19 };
const RADIUS = 12;

type Rgb = readonly [number, number, number];

/** A disc of one colour on another. */
function disc(fill: Rgb, background: Rgb, alpha = 255) {
  const data = new Uint8ClampedArray(4 * WIDTH * HEIGHT);
  for (let i = 0; i < WIDTH * HEIGHT; i++) {
    const distance = Math.hypot((i % WIDTH) + 0.5 - CENTER.x, Math.floor(i / WIDTH) + 0.5 - CENTER.y);
    data.set([...(distance < RADIUS ? fill : background), alpha], 4 * i);
  }
  return { width: WIDTH, height: HEIGHT, data };
}

/** Distances from the centre of the pixels that are white. */
function radii({ data }: { data: Uint8ClampedArray }): number[] {
  return Array.from({ length: WIDTH * HEIGHT }, (_, i) => i)
    .filter((i) => data[4 * i] === 255)
    .map((i) => Math.hypot((i % WIDTH) + 0.5 - CENTER.x, Math.floor(i / WIDTH) + 0.5 - CENTER.y));
}

test("the edges are OpenCV's", () => {
  const golden = JSON.parse(readFileSync("../tests/fixtures/canny.json", "utf8"));
  const { width, height, edges } = golden;
  const rgb = Buffer.from(golden.rgb, "hex");
  const data = new Uint8ClampedArray(4 * width * height).map((_, i) =>
    i % 4 === 3 ? 255 : rgb[3 * (i >> 2) + (i % 4)],
  );
  const found = findEdges({ width, height, data }, 100, 200);
  const row = (y: number) => Array.from({ length: width }, (_, x) => (found.data[4 * (y * width + x)] ? "#" : "."));
  expect(Array.from({ length: height }, (_, y) => row(y).join(""))).toEqual(edges);
});

test("a disc's edge is a line of one pixel around it", () => {
  const edges = findEdges(disc([240, 200, 20], [10, 20, 90]), 100, 200);
  const found = radii(edges);
  expect(Math.min(...found)).toBeGreaterThan(RADIUS - 1.5);
  expect(Math.max(...found)).toBeLessThan(RADIUS + 1.5);
  expect(found.length).toBeGreaterThan(0.8 * 2 * Math.PI * RADIUS * (Math.SQRT1_2 + 0.2));
  expect(found.length).toBeLessThan(1.3 * 2 * Math.PI * RADIUS);
  expect([edges.width, edges.height]).toEqual([WIDTH, HEIGHT]);
});

test("thresholds decide whether a faint edge counts", () => {
  const faint = disc([120, 120, 120], [100, 100, 100]);
  expect(radii(findEdges(faint, 400, 800))).toEqual([]);
  expect(radii(findEdges(faint, 25, 50)).length).toBeGreaterThan(40);
});

test("one colour has no edges, not even at the border", () => {
  expect(radii(findEdges(disc([200, 10, 10], [200, 10, 10]), 25, 50))).toEqual([]);
});

test("edges and rings are outlines; photos and drawings on paper are not", () => {
  const photo = disc([240, 200, 20], [10, 20, 90]);
  expect(isOutline(photo)).toBe(false);
  expect(isOutline(findEdges(photo, 100, 200))).toBe(true);
  const ring = drawShape({ kind: "ring", ring: { center: CENTER, radius: RADIUS } }, { width: WIDTH, height: HEIGHT });
  expect(isOutline(ring)).toBe(true);
  expect(isOutline({ ...ring, data: ring.data.map((value, i) => (i % 4 === 3 ? 255 : 255 - value)) })).toBe(false);
});

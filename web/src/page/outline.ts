/** Outlines as the model knows them: white, one to two pixels wide, on black. */

import type { Image } from "../worker";

/** In pixels of the control image, from its top left corner; pixel i covers i to i + 1. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Ring {
  readonly center: Point;
  readonly radius: number;
}

/** What is on the drawing board. */
export type Shape =
  | { readonly kind: "ring"; readonly ring: Ring }
  | { readonly kind: "strokes"; readonly strokes: readonly (readonly Point[])[] }
  | PictureShape;

export interface PictureShape {
  readonly kind: "picture";
  /** As it was opened. */
  readonly source: Image;
  readonly look: Look;
  /** What `look` makes of it: the control image. */
  readonly picture: Image;
}

/** What is made of an opened picture. */
export interface Look {
  readonly edges: boolean;
  /** 0..1: how faint an edge may be. */
  readonly detail: number;
  readonly inverted: boolean;
}

/** Pixels; the model was trained on one to two. */
export const LINE_WIDTH = 1.5;

export const EMPTY: Shape = { kind: "strokes", strokes: [] };

/** The control image for a shape: a picture as it is, lines drawn at the model's size. */
export function drawShape(shape: Shape, width: number, height: number): Image {
  if (shape.kind === "picture") return shape.picture;
  const coverage = new Float32Array(width * height); // 0..1
  if (shape.kind === "ring") {
    const { center, radius } = shape.ring;
    cover(coverage, width, height, (x, y) => Math.abs(Math.hypot(x - center.x, y - center.y) - radius));
  }
  if (shape.kind === "strokes") {
    for (const stroke of shape.strokes) cover(coverage, width, height, (x, y) => distanceToStroke(x, y, stroke));
  }
  const data = new Uint8ClampedArray(4 * coverage.length).fill(255);
  coverage.forEach((value, i) => void data.fill(Math.round(255 * value), 4 * i, 4 * i + 3));
  return { width, height, data };
}

type Size = Pick<Image, "width" | "height">;

/** A shape from a board of one size on a board of another, whole and in its middle. A picture fits every board. */
export function moveShape(shape: Shape, from: Size, to: Size): Shape {
  const scale = Math.min(to.width / from.width, to.height / from.height);
  const along = (value: number, size: keyof Size) => to[size] / 2 + (value - from[size] / 2) * scale;
  const movePoint = ({ x, y }: Point) => ({ x: along(x, "width"), y: along(y, "height") });
  if (shape.kind === "ring") {
    const { center, radius } = shape.ring;
    return { kind: "ring", ring: { center: movePoint(center), radius: radius * scale } };
  }
  if (shape.kind === "strokes") {
    return { kind: "strokes", strokes: shape.strokes.map((stroke) => stroke.map(movePoint)) };
  }
  return shape;
}

/** The same picture with black and white exchanged: dark lines on a bright ground become what the model knows. */
export function invert({ width, height, data }: Image): Image {
  return { width, height, data: data.map((value, i) => (i % 4 === 3 ? value : 255 - value)) };
}

/** A line's edge is soft over one pixel, as in the pictures that the model was trained on. */
function cover(
  coverage: Float32Array,
  width: number,
  height: number,
  distance: (x: number, y: number) => number,
): void {
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = Math.min(1, Math.max(0, LINE_WIDTH / 2 - distance(x + 0.5, y + 0.5) + 0.5));
      coverage[y * width + x] = Math.max(coverage[y * width + x], value);
    }
  }
}

function distanceToStroke(x: number, y: number, stroke: readonly Point[]): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < stroke.length; i++) {
    nearest = Math.min(nearest, distanceToSegment(x, y, stroke[Math.max(0, i - 1)], stroke[i]));
  }
  return nearest;
}

function distanceToSegment(x: number, y: number, from: Point, to: Point): number {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const squared = along.x ** 2 + along.y ** 2;
  const t = squared === 0 ? 0 : ((x - from.x) * along.x + (y - from.y) * along.y) / squared;
  const clamped = Math.min(1, Math.max(0, t));
  return Math.hypot(x - from.x - clamped * along.x, y - from.y - clamped * along.y);
}

/** Outlines like those of the training pictures: white lines on black, one to two pixels wide. */

import type { FittedImage, Image } from "../worker";

/** Coordinates in pixels of the control image, from its top left corner. Pixel i covers i to i + 1. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Ring {
  readonly center: Point;
  readonly radius: number;
}

/** A line of the pencil, the brush or the eraser. */
export interface Stroke {
  readonly points: readonly Point[];
  /** Pixels of the control image. */
  readonly width: number;
  /** True to draw black instead of white. */
  readonly erases: boolean;
}

/** The content of the drawing board. Strokes are applied in their order. */
export type Shape =
  | { readonly kind: "ring"; readonly ring: Ring }
  | { readonly kind: "strokes"; readonly strokes: readonly Stroke[] }
  | PictureShape;

export interface PictureShape {
  readonly kind: "picture";
  /** The picture as it was opened. */
  readonly source: Image;
  /** The same at the board's size, as the engine reads it. */
  readonly fitted: FittedImage;
  readonly look: Look;
  /** The result of `look`, at the board's size. */
  readonly picture: Image;
  /** Strokes on the picture, in pixels of the board. */
  readonly strokes: readonly Stroke[];
}

/** The changes to an opened picture. */
export interface Look {
  readonly edges: boolean;
  /** 0..1: with more detail, fainter edges are drawn. */
  readonly detail: number;
  readonly inverted: boolean;
}

/** Pixels. The lines of the training pictures are one to two pixels wide. */
const LINE_WIDTH = 1.5;
/** A fraction of the board's width. */
const ERASER_WIDTH = 1 / 16;
/** Pixels between two points of a stroke. */
export const SPACING = 0.75;

export const EMPTY: Shape = { kind: "strokes", strokes: [] };

type Size = Pick<Image, "width" | "height">;

/** Return the width of the pencil or the eraser, in pixels of a board of that size. */
export function strokeWidth(erases: boolean, board: Size): number {
  return erases ? ERASER_WIDTH * board.width : LINE_WIDTH;
}

/** Draw the control image for a shape on a board of that size. A picture has the size that it was fitted to. */
export function drawShape(shape: Shape, width: number, height: number): Image {
  if (shape.kind === "picture") return drawOnPicture(shape);
  const image = {
    width,
    height,
    data: new Uint8ClampedArray(4 * width * height).map((_, i) => (i % 4 === 3 ? 255 : 0)),
  };
  if (shape.kind === "ring") {
    const { center, radius } = shape.ring;
    const corner = (sign: number) => ({ x: center.x + sign * radius, y: center.y + sign * radius });
    const distance = (x: number, y: number) => Math.abs(Math.hypot(x - center.x, y - center.y) - radius);
    cover(image, corner(-1), corner(1), LINE_WIDTH, false, distance);
  } else {
    for (const stroke of shape.strokes) drawStroke(image, stroke);
  }
  return image;
}

function drawOnPicture({ picture, strokes }: PictureShape): Image {
  if (strokes.length === 0) return picture;
  const image = { ...picture, data: picture.data.slice() };
  for (const stroke of strokes) drawStroke(image, stroke);
  return image;
}

/**
 * Move a shape from a board of one size to the middle of a board of another size, without cropping it. The width of lines
 * does not change. A picture is not moved: it is fitted to every board.
 */
export function moveShape(shape: Shape, from: Size, to: Size): Shape {
  if (shape.kind !== "ring") {
    const strokes = moveStrokes(shape.strokes, from, to);
    return { ...shape, strokes: strokes.map((stroke) => ({ ...stroke, width: strokeWidth(stroke.erases, to) })) };
  }
  const { center, radius } = shape.ring;
  return { kind: "ring", ring: { center: movePoint(center, from, to), radius: radius * scaleOf(from, to) } };
}

/** Move strokes to the middle of a board of another size. Their width changes in proportion. */
function moveStrokes(strokes: readonly Stroke[], from: Size, to: Size): Stroke[] {
  return strokes.map(({ points, width, erases }) => ({
    points: points.map((point) => movePoint(point, from, to)),
    width: width * scaleOf(from, to),
    erases,
  }));
}

function movePoint({ x, y }: Point, from: Size, to: Size): Point {
  const scale = scaleOf(from, to);
  return { x: to.width / 2 + (x - from.width / 2) * scale, y: to.height / 2 + (y - from.height / 2) * scale };
}

function scaleOf(from: Size, to: Size): number {
  return Math.min(to.width / from.width, to.height / from.height);
}

/** Turn a ring into a line, which the eraser can remove in part. */
export function traceRing({ center, radius }: Ring): Stroke {
  const count = Math.max(3, Math.ceil((2 * Math.PI * radius) / SPACING));
  const points = Array.from({ length: count + 1 }, (_, i) => {
    const angle = (2 * Math.PI * i) / count;
    return { x: center.x + radius * Math.cos(angle), y: center.y + radius * Math.sin(angle) };
  });
  return { points, width: LINE_WIDTH, erases: false };
}

/** Exchange black and white: dark lines on light paper become white lines on black, which the model expects. */
export function invert({ width, height, data }: Image): Image {
  return { width, height, data: data.map((value, i) => (i % 4 === 3 ? value : 255 - value)) };
}

function drawStroke(image: Image, { points, width, erases }: Stroke): void {
  for (const [i, to] of points.entries()) {
    const from = points[Math.max(0, i - 1)];
    cover(image, from, to, width, erases, (x, y) => distanceToSegment(x, y, from, to));
  }
}

/**
 * Draw a white or black line that lies between two corners; `distance` returns the distance from the line's middle. The
 * line's edge is soft over one pixel, as in the training pictures.
 */
function cover(
  { width, height, data }: Image,
  one: Point,
  other: Point,
  lineWidth: number,
  erases: boolean,
  distance: (x: number, y: number) => number,
): void {
  const reach = lineWidth / 2 + 1;
  const first = (a: number, b: number) => Math.max(0, Math.floor(Math.min(a, b) - reach));
  const end = (a: number, b: number, size: number) => Math.min(size, Math.ceil(Math.max(a, b) + reach));
  for (let y = first(one.y, other.y); y < end(one.y, other.y, height); y++) {
    for (let x = first(one.x, other.x); x < end(one.x, other.x, width); x++) {
      const covered = 255 * Math.min(1, Math.max(0, lineWidth / 2 - distance(x + 0.5, y + 0.5) + 0.5));
      const pixel = 4 * (y * width + x);
      for (let i = pixel; i < pixel + 3; i++) {
        data[i] = erases ? Math.min(data[i], 255 - covered) : Math.max(data[i], covered);
      }
      data[pixel + 3] = Math.max(data[pixel + 3], covered); // makes a line on a transparent part visible
    }
  }
}

function distanceToSegment(x: number, y: number, from: Point, to: Point): number {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const squared = along.x ** 2 + along.y ** 2;
  const t = squared === 0 ? 0 : ((x - from.x) * along.x + (y - from.y) * along.y) / squared;
  const clamped = Math.min(1, Math.max(0, t));
  return Math.hypot(x - from.x - clamped * along.x, y - from.y - clamped * along.y);
}

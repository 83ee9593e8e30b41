/** The content of a control unit's board, and how it becomes the control image. */

import type { Image } from "../../worker";
import type { Annotation } from "../annotators/annotation";
import type { Fit } from "./fit";
import {
  blackImage,
  drawRing,
  drawStroke,
  moveRing,
  moveStrokes,
  type Ring,
  type Size,
  type Stroke,
  traceRing,
} from "./marks";

/** Strokes are applied in their order. */
export type Shape = RingShape | StrokeShape | PictureShape;

/** A ring that keys can move, as the bundled model wants it. */
export interface RingShape {
  readonly kind: "ring";
  readonly ring: Ring;
  /** Until the visitor changes it. */
  readonly isExample?: boolean;
}

export interface StrokeShape {
  readonly kind: "strokes";
  readonly strokes: readonly Stroke[];
  /** Until the visitor draws. */
  readonly isExample?: boolean;
}

export interface PictureShape {
  readonly kind: "picture";
  /** The picture as it was opened. */
  readonly source: Image;
  readonly fit: Fit;
  /** The annotator that makes the control image of it. */
  readonly annotation: Annotation;
  /** Strokes on the result, in pixels of the board. */
  readonly strokes: readonly Stroke[];
}

/** A ring whose numbers are fractions of the board's width. */
export function ringShape({ width, height }: Size, x: number, y: number, radius: number): RingShape {
  const ring = { center: { x: x * width, y: y * height }, radius: radius * width };
  return { kind: "ring", ring, isExample: true };
}

export const EMPTY: StrokeShape = { kind: "strokes", strokes: [] };

/** Draw the control image of `size`. `picture` is what a picture's annotator made, of that size, if there is one. */
export function drawShape(shape: Shape, { width, height }: Size, picture?: Image): Image {
  const strokes = shape.kind === "ring" ? [] : shape.strokes;
  if (picture !== undefined && strokes.length === 0) return picture;
  const image = picture === undefined ? blackImage(width, height) : { ...picture, data: picture.data.slice() };
  if (shape.kind === "ring") drawRing(image, shape.ring);
  for (const stroke of strokes) drawStroke(image, stroke);
  return image;
}

/** Move a shape to the middle of a board of another size, without cropping it. A picture is fitted to every board. */
export function moveShape(shape: Shape, from: Size, to: Size): Shape {
  if (shape.kind === "ring") return { ...shape, ring: moveRing(shape.ring, from, to) };
  return { ...shape, strokes: moveStrokes(shape.strokes, from, to) };
}

/** Add a stroke. It takes the place of an example, and of any ring for a model that expects a single outline. */
export function addStroke(shape: Shape, stroke: Stroke, isOneRing: boolean): Shape {
  if (shape.kind === "picture") return { ...shape, strokes: [...shape.strokes, stroke] };
  if (shape.kind === "strokes") {
    const kept = shape.isExample && !stroke.erases ? [] : shape.strokes;
    return { kind: "strokes", strokes: [...kept, stroke] };
  }
  const replacesRing = isOneRing || shape.isExample;
  return { kind: "strokes", strokes: replacesRing && !stroke.erases ? [stroke] : [traceRing(shape.ring), stroke] };
}

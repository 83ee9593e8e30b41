/** What can be made of an opened picture: its edges, with more or less detail, or the picture with black and white exchanged. */

import type { Image } from "../worker";
import { coverSize, shrink } from "./canvas";
import { findEdges } from "./edges";
import { invert, type Look, type PictureShape, type Shape } from "./outline";

const DETAIL = 0.5;
/** Of the board's size: how large an opened picture stays. A model whose size is not known yet may want that much. */
export const SPARE = 4;

type Size = Pick<Image, "width" | "height">;

/** A picture as it comes onto the board; its edges are found at the board's size. */
export function openedPicture(opened: Image, edges: boolean, size: Size): PictureShape {
  const source = shrink(opened, SPARE * size.width, SPARE * size.height);
  const look = { edges, detail: DETAIL, inverted: false };
  return { kind: "picture", source, look, picture: applyLook(source, look, size), strokes: [] };
}

/** Edges are found at the board's size: again, where it has another now. */
export function fitPicture(shape: Shape, size: Size): Shape {
  if (shape.kind !== "picture" || !shape.look.edges) return shape;
  if (shape.picture.width === size.width && shape.picture.height === size.height) return shape;
  return { ...shape, picture: applyLook(shape.source, shape.look, size) };
}

export function applyLook(source: Image, look: Look, { width, height }: Size): Image {
  const lines = look.edges ? findEdges(coverSize(source, width, height), look.detail) : source;
  return look.inverted ? invert(lines) : lines;
}

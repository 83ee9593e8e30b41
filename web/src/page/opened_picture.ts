/** A picture that was opened: its pixels at the model's size, its edges, and the same with black and white exchanged. */

import { type FittedImage, fitImage, type Image } from "../worker";
import { findEdges } from "./edges";
import { invert, type Look, type PictureShape, type Shape } from "./outline";

const DETAIL = 0.5;
/** The name of the drawing board's picture in errors and notices. */
const SUBJECT = "control image";

type Size = Pick<Image, "width" | "height">;

/** Make the shape of a newly opened picture. Throws UserError if it is too small. */
export function openedPicture(source: Image, edges: boolean, size: Size): PictureShape {
  const fitted = fitImage(source, size.height, size.width, SUBJECT);
  const look = { edges, detail: DETAIL, inverted: false };
  return { kind: "picture", source, fitted, look, picture: applyLook(fitted, look), strokes: [] };
}

/** Return the shape on a board of that size: a picture is fitted again if the board's size has changed. */
export function fitPicture(shape: Shape, size: Size): Shape {
  if (shape.kind !== "picture") return shape;
  if (shape.picture.width === size.width && shape.picture.height === size.height) return shape;
  const fitted = fitImage(shape.source, size.height, size.width, SUBJECT);
  return { ...shape, fitted, picture: applyLook(fitted, shape.look) };
}

export function applyLook({ image }: FittedImage, look: Look): Image {
  const lines = look.edges ? findEdges(image, look.detail) : image;
  return look.inverted ? invert(lines) : lines;
}

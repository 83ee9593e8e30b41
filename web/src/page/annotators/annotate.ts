/** Make control images of pictures. */

import type { Image } from "../../worker";
import { type Annotation, parameterOf } from "./annotation";
import { findEdges } from "./edges";

/** Apply an annotator to a picture at the model's size. */
export async function annotate(image: Image, annotation: Annotation): Promise<Image> {
  const lines =
    annotation.name === "canny"
      ? findEdges(image, parameterOf(annotation, "low"), parameterOf(annotation, "high"))
      : image;
  return annotation.inverted ? invert(lines) : lines;
}

/** Exchange black and white: dark lines on light paper become white lines on black, which models expect. */
export function invert({ width, height, data }: Image): Image {
  return { width, height, data: data.map((value, i) => (i % 4 === 3 ? value : 255 - value)) };
}

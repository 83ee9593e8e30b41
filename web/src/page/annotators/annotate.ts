/** Make control images of pictures, in workers that are started for the first annotator of their kind. */

import type { Image } from "../../worker";
import type { Annotation } from "./annotation";
import { annotateByOnnx } from "./onnx_models";
import type { AnnotateCall } from "./opencv_worker";
import { WorkerCalls } from "./worker_calls";

const openCv = new WorkerCalls<AnnotateCall>(
  () => new Worker(new URL("./opencv_worker.ts", import.meta.url), { type: "module", name: "annotators" }),
  "OpenCV.js",
);

/** Apply an annotator to a picture at the model's size. Throws PageError if its script cannot be loaded. */
export async function annotate(image: Image, annotation: Annotation): Promise<Image> {
  const lines = await apply(image, annotation);
  return annotation.inverted ? invert(lines) : lines;
}

/** Exchange black and white: dark lines on light paper become white lines on black, which models expect. */
export function invert({ width, height, data }: Image): Image {
  return { width, height, data: data.map((value, i) => (i % 4 === 3 ? value : 255 - value)) };
}

function apply(image: Image, annotation: Annotation): Promise<Image> | Image {
  if (annotation.name === "none") return image;
  if (annotation.name === "onnx") return annotateByOnnx(image, annotation);
  return openCv.call<Image>({ image, annotation });
}

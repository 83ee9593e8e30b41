/** The worker that has OpenCV.js: ten megabytes, fetched when an annotator is used for the first time. */

import opencv from "@techstark/opencv-js";
import type { Image } from "../../worker";
import type { Annotation } from "./annotation";
import { annotateWith, type OpenCv, whenReady } from "./opencv";

export interface AnnotateCall {
  readonly id: number;
  readonly image: Image;
  readonly annotation: Annotation;
}

export type AnnotateReply =
  | { readonly id: number; readonly image: Image }
  | { readonly id: number; readonly error: string };

const loading = whenReady(opencv as unknown as OpenCv);

addEventListener("message", async ({ data: { id, image, annotation } }: MessageEvent<AnnotateCall>) => {
  try {
    const { cv } = await loading;
    reply({ id, image: annotateWith(cv, image, annotation) });
  } catch (error) {
    reply({ id, error: String(error) });
  }
});

function reply(message: AnnotateReply): void {
  postMessage(message);
}

/** The worker that has OpenCV.js: ten megabytes, fetched when an annotator is used for the first time. */

import opencv from "@techstark/opencv-js";
import type { Image } from "../../worker";
import type { Annotation } from "./annotation";
import { annotateWith, type OpenCv, whenReady } from "./opencv";
import type { WorkerReply } from "./worker_calls";

export interface AnnotateCall {
  readonly image: Image;
  readonly annotation: Annotation;
}

const loading = whenReady(opencv as unknown as OpenCv);

addEventListener(
  "message",
  async ({ data: { id, image, annotation } }: MessageEvent<AnnotateCall & { id: number }>) => {
    try {
      const { cv } = await loading;
      reply({ id, answer: annotateWith(cv, image, annotation) });
    } catch (error) {
      reply({ id, error: String(error) });
    }
  },
);

function reply(message: WorkerReply<Image>): void {
  postMessage(message);
}

/** Make control images of pictures, in a worker that is started for the first annotator. */

import { type Image, UserError } from "../../worker";
import type { Annotation } from "./annotation";
import type { AnnotateCall, AnnotateReply } from "./opencv_worker";

interface Waiting {
  readonly resolve: (image: Image) => void;
  readonly reject: (error: unknown) => void;
}

let worker: Worker | undefined;
const waiting = new Map<number, Waiting>();
let calls = 0;

/** Apply an annotator to a picture at the model's size. Throws UserError if OpenCV.js cannot be loaded. */
export async function annotate(image: Image, annotation: Annotation): Promise<Image> {
  const lines = annotation.name === "none" ? image : await callWorker(image, annotation);
  return annotation.inverted ? invert(lines) : lines;
}

/** Exchange black and white: dark lines on light paper become white lines on black, which models expect. */
export function invert({ width, height, data }: Image): Image {
  return { width, height, data: data.map((value, i) => (i % 4 === 3 ? value : 255 - value)) };
}

function callWorker(image: Image, annotation: Annotation): Promise<Image> {
  worker ??= startWorker();
  const id = ++calls;
  const call: AnnotateCall = { id, image, annotation };
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker?.postMessage(call);
  });
}

function startWorker(): Worker {
  const started = new Worker(new URL("./opencv_worker.ts", import.meta.url), { type: "module", name: "annotators" });
  started.onmessage = ({ data }: MessageEvent<AnnotateReply>) => {
    const call = waiting.get(data.id);
    waiting.delete(data.id);
    if ("image" in data) call?.resolve(data.image);
    else call?.reject(new Error(data.error));
  };
  started.onerror = (event) => {
    event.preventDefault();
    worker = undefined; // the next annotator tries again
    const remedy = "check the connection and choose the annotator again";
    const error = event.message
      ? new Error(`the annotators' worker failed: ${event.message}`)
      : new UserError("the annotators' script", "no answer", "OpenCV.js from the page's host", remedy);
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  return started;
}

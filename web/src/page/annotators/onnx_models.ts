/** Annotators of the visitor's own: models in ONNX files, which run in a worker of their own. */

import { type Signal, signal } from "@preact/signals";
import type { Image } from "../../worker";
import { blackImage, drawStroke } from "../drawing/marks";
import { poseStrokes } from "../samples/pose";
import { t } from "../text";
import { PageError } from "../text/page_error";
import { type Annotation, parameterOf } from "./annotation";
import { type OnnxInput, type OnnxOutput, SCALINGS } from "./onnx_tensors";
import type { OnnxCall, OnnxRefusal } from "./onnx_worker";
import { WorkerCalls } from "./worker_calls";

/** A model that is open until the page is closed. */
export interface OnnxModel {
  /** Positive. */
  readonly id: number;
  readonly name: string;
  readonly input: OnnxInput;
}

export const onnxModels: Signal<readonly OnnxModel[]> = signal([]);

const SIDE_MULTIPLE = 32; // pixels: networks halve a picture about five times
let nextId = 1;

const worker = new WorkerCalls<OnnxCall>(
  () => new Worker(new URL("./onnx_worker.ts", import.meta.url), { type: "module", name: "onnx" }),
  "onnxruntime-web",
);

/** Open a model's file. Throws PageError for a file that is none, and for a model that reads no picture. */
export async function openOnnx(file: File): Promise<OnnxModel> {
  const id = nextId++;
  const content = await file.arrayBuffer();
  const input = accepted(
    await worker.call<OnnxInput | OnnxRefusal>({ open: content, model: id }, [content]),
    file.name,
  );
  const model = { id, name: file.name, input };
  onnxModels.value = [...onnxModels.peek(), model];
  return model;
}

/** Apply the model that the annotation names; before one is open, the picture stays as it is. */
export async function annotateByOnnx(image: Image, annotation: Annotation): Promise<Image> {
  const model = onnxModels.peek().find(({ id }) => id === parameterOf(annotation, "model"));
  if (model === undefined) return image;
  const size = sizeFor(model.input, image, parameterOf(annotation, "side"));
  const scaling = SCALINGS[parameterOf(annotation, "scaling")];
  const call: OnnxCall = { image, model: model.id, size, scaling };
  const output = accepted(await worker.call<OnnxOutput | OnnxRefusal>(call), model.name);
  if ("image" in output) return output.image;
  const drawn = blackImage(image.width, image.height);
  for (const stroke of poseStrokes(output.pose, image)) drawStroke(drawn, stroke);
  return drawn;
}

/** The model's own size, or for what it leaves open the picture's, with a longer side of `side` pixels. */
export function sizeFor(
  { width, height }: Pick<OnnxInput, "width" | "height">,
  picture: Pick<Image, "width" | "height">,
  side: number,
) {
  const scale = side / Math.max(picture.width, picture.height);
  const open = (length: number) => Math.max(1, Math.round((length * scale) / SIDE_MULTIPLE)) * SIDE_MULTIPLE;
  return { width: width ?? open(picture.width), height: height ?? open(picture.height) };
}

function accepted<Answer extends object>(answer: Answer | OnnxRefusal, name: string): Answer {
  if (!("refused" in answer)) return answer;
  const { refused, got } = answer;
  throw new PageError(name, () => t.value.onnxErrors[refused](got));
}

/** Pictures as an ONNX model's input, and its output as a picture. */

import { type Plane, resizePicture, toImage, toPlanes } from "../../engine/picture";
import type { Image } from "../../worker";
import type { Point, Size } from "../drawing/marks";
import { fromCoco, type Pose } from "../samples/pose";

/** How bytes become the numbers that a model was trained with. */
export const SCALINGS = ["imagenet", "unit", "signed", "bytes"] as const;
export type Scaling = (typeof SCALINGS)[number];

/** Mean and standard deviation of ImageNet's pictures, of which most networks for pictures are made. */
const IMAGENET = { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] } as const;
/** Below it a heat map shows no point. */
const FAINTEST_POINT = 0.1;

/** What a model reads: one picture, planes or pixels first. A side that the model leaves open is undefined. */
export interface OnnxInput {
  readonly name: string;
  readonly type: "float32" | "uint8";
  readonly planesFirst: boolean;
  readonly width: number | undefined;
  readonly height: number | undefined;
}

export interface Tensor {
  readonly dims: readonly number[];
  readonly data: ArrayLike<number>;
}

/** A picture, or the points of a person. */
export type OnnxOutput = { readonly image: Image } | { readonly pose: Pose };

/** Read a shape such as [1, 3, 256, 256]; undefined unless it is that of one picture of three colours. */
export function readInput(name: string, type: string, shape: readonly (number | string)[]): OnnxInput | undefined {
  if (shape.length !== 4 || (type !== "float32" && type !== "uint8")) return undefined;
  const planesFirst = shape[1] === 3;
  if (!planesFirst && shape[3] !== 3) return undefined;
  const [height, width] = (planesFirst ? shape.slice(2) : shape.slice(1, 3)).map((side) =>
    typeof side === "number" && side > 0 ? side : undefined,
  );
  return { name, type, planesFirst, width, height };
}

/** Scale a picture to the model's size, and put it in the model's order. Returns the numbers and their shape. */
export function toTensor(image: Image, { type, planesFirst }: OnnxInput, size: Size, scaling: Scaling) {
  const { planes } = resizePicture(toPlanes(image), size);
  const count = size.width * size.height;
  const data = type === "uint8" ? new Uint8Array(3 * count) : new Float32Array(3 * count);
  for (let channel = 0; channel < 3; channel++) {
    const scale = type === "uint8" ? (byte: number) => byte : scaled(scaling, channel);
    for (let i = 0; i < count; i++)
      data[planesFirst ? channel * count + i : 3 * i + channel] = scale(planes[channel][i]);
  }
  const { width, height } = size;
  return { data, dims: planesFirst ? [1, 3, height, width] : [1, height, width, 3] };
}

function scaled(scaling: Scaling, channel: number): (byte: number) => number {
  const { mean, deviation } = IMAGENET;
  const scales = {
    imagenet: (byte: number) => (byte / 255 - mean[channel]) / deviation[channel],
    unit: (byte: number) => byte / 255,
    signed: (byte: number) => byte / 127.5 - 1,
    bytes: (byte: number) => byte,
  };
  return scales[scaling];
}

/**
 * Read an output as a picture of `size`: depth or lines [H, W], colours [3, H, W] or [H, W, 3], or heat maps of a person's
 * points, 17 as COCO has them, or OpenPose's 18, also with one for the background. Undefined for any other shape.
 */
export function readOutput({ dims, data }: Tensor, size: Size): OnnxOutput | undefined {
  const shape = dims.filter((side, i) => side !== 1 || i >= dims.length - 2);
  const inner = shape.length === 4 && shape[0] === 1 ? shape.slice(1) : shape;
  const last = dims.at(-1);
  if (inner.length === 3 && inner[0] >= 17 && inner[0] <= 19) return { pose: readHeatMaps(inner, data, size) };
  if (inner.length === 3 && inner[0] === 3) return picture(inner[2], inner[1], 3, data, true, size);
  if (inner.length === 3 && last === 3) return picture(inner[1], inner[0], 3, data, false, size);
  if (inner.length === 3 && last === 1) return picture(inner[1], inner[0], 1, data, true, size);
  const isPlane = inner.length === 2 && inner.every((side) => side > 1); // a list of numbers is no picture
  return isPlane ? picture(inner[1], inner[0], 1, data, true, size) : undefined;
}

function picture(
  width: number,
  height: number,
  channels: number,
  data: ArrayLike<number>,
  planesFirst: boolean,
  size: Size,
): OnnxOutput {
  const count = width * height;
  const toByte = stretch(data, channels);
  const plane = (channel: number): Plane =>
    Uint8ClampedArray.from({ length: count }, (_, i) =>
      toByte(data[planesFirst ? channel * count + i : channels * i + channel]),
    );
  const one = channels === 1 ? plane(0) : undefined;
  const planes = [0, 1, 2].map((channel) => one ?? plane(channel));
  return { image: toImage(resizePicture({ width, height, planes }, size)) };
}

/** Depth and lines go from black to white; colours keep their range, which is 0 to 1, -1 to 1, or bytes. */
function stretch(data: ArrayLike<number>, channels: number): (value: number) => number {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < data.length; i++) {
    low = Math.min(low, data[i]);
    high = Math.max(high, data[i]);
  }
  if (channels === 3) [low, high] = high > 1.5 ? [0, 255] : low < -0.01 ? [-1, 1] : [0, 1];
  const scale = high > low ? 255 / (high - low) : 0;
  return (value) => (value - low) * scale;
}

/** The brightest place of each heat map, in pixels of a board of `size`. */
function readHeatMaps([count, height, width]: readonly number[], data: ArrayLike<number>, size: Size): Pose {
  const points = Array.from({ length: Math.min(count, 18) }, (_, point): Point | undefined => {
    let best = point * width * height;
    for (let i = best; i < (point + 1) * width * height; i++) if (data[i] > data[best]) best = i;
    if (!(data[best] > FAINTEST_POINT)) return undefined;
    const at = best - point * width * height;
    return {
      x: (((at % width) + 0.5) * size.width) / width,
      y: ((Math.floor(at / width) + 0.5) * size.height) / height,
    };
  });
  return count === 17 ? fromCoco(points) : points;
}

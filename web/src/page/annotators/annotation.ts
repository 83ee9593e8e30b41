/** The names of the annotators, their parameters, and which of them serve a kind of ControlNet. */

import type { ControlKind } from "../../worker";
import type { Size } from "../drawing/marks";

/**
 * The names are those of mlc_controlnet/images/annotators.py; `none` takes the picture as it is, and `onnx` is a model of the
 * visitor's own.
 */
export const ANNOTATOR_NAMES = [
  "none",
  "canny",
  "scribble",
  "softedge",
  "lineart",
  "tile",
  "blur",
  "color",
  "threshold",
  "normal",
  "onnx",
] as const;
export type AnnotatorName = (typeof ANNOTATOR_NAMES)[number];

/** An annotator with its parameters. */
export interface Annotation {
  readonly name: AnnotatorName;
  /** By name; what is missing has its default. */
  readonly parameters: Readonly<Record<string, number>>;
  /** Black and white are exchanged at the end. */
  readonly inverted: boolean;
}

/** One parameter of an annotator. */
export interface Parameter {
  readonly min: number;
  readonly max: number;
  readonly step: number;
  readonly default: number;
}

const CELL: Parameter = { min: 2, max: 64, step: 1, default: 8 };

/** The parameters of each annotator, by name: those of the Python functions, with the same defaults. */
export const PARAMETERS: Readonly<Record<AnnotatorName, Readonly<Record<string, Parameter>>>> = {
  none: {},
  canny: {
    low: { min: 0, max: 400, step: 5, default: 100 },
    high: { min: 0, max: 800, step: 5, default: 200 },
  },
  scribble: { threshold: { min: 1, max: 128, step: 1, default: 16 } },
  softedge: {},
  lineart: {},
  tile: { factor: CELL },
  blur: { sigma: { min: 0.5, max: 32, step: 0.5, default: 9 } },
  color: { factor: { ...CELL, max: 128, default: 64 } },
  threshold: { level: { min: 0, max: 254, step: 1, default: 127 } },
  normal: {
    background: { min: 0, max: 1, step: 0.05, default: 0.4 },
    depth: { min: 0.5, max: 16, step: 0.1, default: 6.3 },
  },
  onnx: {
    model: { min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, default: 0 }, // none
    scaling: { min: 0, max: 3, step: 1, default: 0 },
    side: { min: 128, max: 1024, step: 32, default: 512 }, // pixels, where the model leaves its size open
  },
};

export const PASS_THROUGH: Annotation = { name: "none", parameters: {}, inverted: false };

/** Return the value of a parameter of an annotation. */
export function parameterOf({ name, parameters }: Annotation, parameter: string): number {
  return parameters[parameter] ?? PARAMETERS[name][parameter].default;
}

/** An annotator as it begins on a board: a grid of colours has eight cells along the shorter side. */
export function annotationOf(name: AnnotatorName, { width, height }: Size): Annotation {
  const factor = Math.max(CELL.min, Math.round(Math.min(width, height) / 8));
  return { ...PASS_THROUGH, name, parameters: name === "color" ? { factor } : {} };
}

/** The first of a kind is the one for a photo. `none` is for maps that are ready. */
const BY_KIND: Readonly<Record<ControlKind, readonly AnnotatorName[]>> = {
  canny: ["canny", "none"],
  mlsd: ["canny", "onnx", "none"],
  scribble: ["scribble", "canny", "threshold", "none"],
  softedge: ["softedge", "onnx", "none"],
  lineart: ["lineart", "scribble", "threshold", "onnx", "none"],
  lineart_anime: ["lineart", "scribble", "threshold", "onnx", "none"],
  tile: ["tile", "blur", "none"],
  shuffle: ["color", "blur", "none"],
  color: ["color", "blur", "none"],
  normalbae: ["normal", "onnx", "none"],
  // Maps that only a model can make of a photo, or a person by painting.
  depth: ["none", "onnx", "blur"],
  openpose: ["none", "onnx"],
  seg: ["none", "onnx"],
  ip2p: ["none"],
  inpaint: ["none"],
};

/** The annotators for a kind of ControlNet, in ControlNet 1.1's words; of an unknown kind, all. */
export function annotatorsFor(kind: string): readonly AnnotatorName[] {
  return BY_KIND[kind as ControlKind] ?? ["canny", ...ANNOTATOR_NAMES.filter((name) => name !== "canny")];
}

/** The names of the annotators, their parameters, and which of them serve a kind of ControlNet. */

/** The names are those of mlc_controlnet/images/annotators.py; `none` takes the picture as it is. */
export const ANNOTATOR_NAMES = ["none", "canny"] as const;
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

/** The parameters of each annotator, by name. */
export const PARAMETERS: Readonly<Record<AnnotatorName, Readonly<Record<string, Parameter>>>> = {
  none: {},
  canny: {
    low: { min: 0, max: 400, step: 5, default: 100 },
    high: { min: 0, max: 800, step: 5, default: 200 },
  },
};

export const PASS_THROUGH: Annotation = { name: "none", parameters: {}, inverted: false };

/** Return the value of a parameter of an annotation. */
export function parameterOf({ name, parameters }: Annotation, parameter: string): number {
  return parameters[parameter] ?? PARAMETERS[name][parameter].default;
}

/** The annotators for a kind of ControlNet, in ControlNet 1.1's words; the first is the one for a photo. */
export function annotatorsFor(_kind: string): readonly AnnotatorName[] {
  return ["canny", "none"];
}

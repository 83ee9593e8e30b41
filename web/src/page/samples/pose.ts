/** A person as OpenPose draws one, which ControlNet's pose models were trained with: limbs in colours that tell them apart. */

import type { Color, Point, Size, Stroke } from "../drawing/marks";

/** OpenPose's 18 points, in its order; undefined: not seen. */
export type Pose = readonly (Point | undefined)[];

/** Pairs of points. The colours of limbs and of points go around the colour wheel in this order. */
const LIMBS: readonly (readonly [from: number, to: number])[] = [
  [1, 2], // from the neck to the right shoulder, and so on
  [1, 5],
  [2, 3],
  [3, 4],
  [5, 6],
  [6, 7],
  [1, 8],
  [8, 9],
  [9, 10],
  [1, 11],
  [11, 12],
  [12, 13],
  [1, 0],
  [0, 14],
  [14, 16],
  [0, 15],
  [15, 17],
];
const POINTS = 18;
/** Limbs are darker than points. */
const LIMB_SHADE = 0.6;
/** Shares of the board's longer side. */
const LIMB_WIDTH = 1 / 64;
const THINNEST = 2; // pixels

/** Draw a pose, whose points are in pixels of the board. */
export function poseStrokes(pose: Pose, { width, height }: Size): Stroke[] {
  const thick = Math.max(THINNEST, LIMB_WIDTH * Math.max(width, height));
  const limbs = LIMBS.flatMap(([from, to], i): Stroke[] => {
    const points = [pose[from], pose[to]].filter((point) => point !== undefined);
    if (points.length < 2) return [];
    const color = wheel(i).map((part) => Math.floor(LIMB_SHADE * part)) as unknown as Color;
    return [{ points, width: thick, erases: false, color }];
  });
  const joints = pose.flatMap((point, i): Stroke[] =>
    point === undefined ? [] : [{ points: [point], width: thick, erases: false, color: wheel(i) }],
  );
  return [...limbs, ...joints];
}

/** One of 18 colours around the wheel, from red. */
function wheel(i: number): Color {
  const part = (offset: number) => {
    const third = (6 * (i + offset)) / POINTS;
    return Math.round(255 * Math.min(1, Math.max(0, Math.abs((third % 6) - 3) - 1)));
  };
  return [part(0), part(12), part(6)];
}

/** COCO's 17 points, nose to ankles, as OpenPose's 18: the neck is between the shoulders. */
export function fromCoco(coco: Pose): Pose {
  const [left, right] = [coco[5], coco[6]];
  const neck = left && right && { x: (left.x + right.x) / 2, y: (left.y + right.y) / 2 };
  const rest = [6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3].map((place) => coco[place]);
  return [coco[0], neck, ...rest];
}

const pose = (...numbers: readonly number[]): readonly Point[] =>
  Array.from({ length: numbers.length / 2 }, (_, i) => ({ x: numbers[2 * i], y: numbers[2 * i + 1] }));

// nose, neck, right arm, left arm, right leg, left leg, eyes, ears: the person's right is on the left.
const STANDING = pose(
  ...[0.5, 0.17, 0.5, 0.28, 0.41, 0.28, 0.37, 0.42, 0.36, 0.55, 0.59, 0.28, 0.63, 0.42, 0.64, 0.55],
  ...[0.44, 0.54, 0.43, 0.74, 0.42, 0.93, 0.56, 0.54, 0.57, 0.74, 0.58, 0.93],
  ...[0.48, 0.15, 0.52, 0.15, 0.45, 0.16, 0.55, 0.16],
);
const WAVING = pose(
  ...[0.5, 0.2, 0.5, 0.3, 0.41, 0.3, 0.3, 0.22, 0.26, 0.08, 0.59, 0.3, 0.69, 0.41, 0.62, 0.51],
  ...[0.44, 0.55, 0.36, 0.72, 0.4, 0.92, 0.56, 0.55, 0.63, 0.73, 0.66, 0.93],
  ...[0.48, 0.18, 0.52, 0.18, 0.45, 0.19, 0.55, 0.19],
);

/** Points as fractions of a square. */
export const POSES: readonly (readonly Point[])[] = [STANDING, WAVING];

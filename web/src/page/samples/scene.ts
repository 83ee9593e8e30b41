/**
 * Small scenes of balls on a floor, computed here: a photo, how far each pixel is, and what it shows. So the samples for each
 * kind of control image agree with one another, and nobody else's pictures are shipped.
 */

import type { Image } from "../../worker";
import { classOf, type PaintClass } from "../classes/ade20k";
import type { Color, Size } from "../drawing/marks";

type Vector = readonly [x: number, y: number, z: number];

interface Ball {
  readonly center: Vector;
  readonly radius: number;
  readonly color: Color;
  readonly shows: PaintClass;
}

/** A floor at height 0, and a wall or a sky behind it. */
export interface Scene {
  readonly balls: readonly Ball[];
  readonly floor: { readonly colors: readonly [Color, Color]; readonly shows: PaintClass };
  readonly back: { readonly colors: readonly [low: Color, high: Color]; readonly shows: PaintClass };
  /** How far away the back is. */
  readonly depth: number;
}

/** What a ray meets. */
interface Hit {
  readonly distance: number;
  readonly color: Color;
  readonly shows: PaintClass;
}

const EYE: Vector = [0, 1.5, -4];
const LOOKS_DOWN = 0.2; // of the way
const LIGHT = normalised([-0.6, 0.9, -0.5]);
const NEAREST = 2.2;

export const ROOM: Scene = {
  balls: [
    { center: [-0.75, 0.8, 0.6], radius: 0.8, color: [196, 52, 44], shows: classOf("ball") },
    { center: [0.95, 0.5, -0.2], radius: 0.5, color: [48, 110, 190], shows: classOf("ball") },
    { center: [0.1, 0.28, -1], radius: 0.28, color: [236, 178, 52], shows: classOf("ball") },
  ],
  floor: {
    colors: [
      [168, 128, 88],
      [132, 96, 62],
    ],
    shows: classOf("floor"),
  },
  back: {
    colors: [
      [186, 190, 186],
      [226, 224, 214],
    ],
    shows: classOf("wall"),
  },
  depth: 9,
};

export const MEADOW: Scene = {
  balls: [
    { center: [-1.7, 1.1, 2.6], radius: 1.1, color: [44, 104, 50], shows: classOf("tree") },
    { center: [-0.5, 0.7, 3.6], radius: 0.8, color: [60, 124, 58], shows: classOf("tree") },
    { center: [1.3, 0.35, 0.2], radius: 0.42, color: [128, 122, 116], shows: classOf("rock") },
    { center: [3, -3.2, 9], radius: 5.4, color: [92, 128, 84], shows: classOf("hill") },
  ],
  floor: {
    colors: [
      [112, 152, 66],
      [104, 144, 60],
    ],
    shows: classOf("grass"),
  },
  back: {
    colors: [
      [214, 228, 240],
      [86, 146, 214],
    ],
    shows: classOf("sky"),
  },
  depth: 14,
};

/** What a picture of a scene shows of each pixel. */
export type View = "photo" | "depth" | "classes";

export function renderScene(scene: Scene, { width, height }: Size, view: View): Image {
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  const scale = 1 / Math.min(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const across = (2 * x + 1 - width) * scale;
      const up = (height - 2 * y - 1) * scale;
      data.set(
        colorOf(look(scene, normalised([0.62 * across, 0.62 * up - LOOKS_DOWN, 1])), scene, view),
        4 * (y * width + x),
      );
    }
  }
  return { width, height, data };
}

function colorOf({ distance, color, shows }: Hit, { depth }: Scene, view: View): Color {
  if (view === "photo") return color;
  if (view === "classes") return shows.color;
  const near = 255 * Math.min(1, Math.max(0, (1 / distance - 1 / depth) / (1 / NEAREST - 1 / depth)));
  return [near, near, near];
}

function look(scene: Scene, ray: Vector): Hit {
  const { balls, floor, back } = scene;
  let nearest = Number.POSITIVE_INFINITY;
  let met: Ball | undefined;
  for (const ball of balls) {
    const distance = reach(EYE, ray, ball);
    if (distance < nearest) [nearest, met] = [distance, ball];
  }
  const toFloor = ray[1] < 0 ? -EYE[1] / ray[1] : Number.POSITIVE_INFINITY;
  const toBack = (scene.depth - EYE[2]) / ray[2];
  if (met !== undefined && nearest < toFloor) {
    const place = along(EYE, ray, nearest);
    const up = normalised(minus(place, met.center));
    return { distance: nearest, color: lit(met.color, dot(up, LIGHT), isShaded(place, met, balls)), shows: met.shows };
  }
  if (toFloor < toBack) {
    const place = along(EYE, ray, toFloor);
    const isOdd = (Math.floor(place[0] / 0.6) + Math.floor(place[2] / 2.4)) & 1;
    return {
      distance: toFloor,
      color: lit(floor.colors[isOdd], LIGHT[1], isShaded(place, undefined, balls)),
      shows: floor.shows,
    };
  }
  const share = Math.min(1, Math.max(0, along(EYE, ray, toBack)[1] / 6));
  const color = back.colors[0].map((low, i) => low + share * (back.colors[1][i] - low)) as unknown as Color;
  return { distance: scene.depth, color, shows: back.shows };
}

/** The distance along a ray to a ball; infinite past it. */
function reach(from: Vector, ray: Vector, { center, radius }: Ball): number {
  const to = minus(center, from);
  const middle = dot(to, ray);
  const inside = radius ** 2 - (dot(to, to) - middle ** 2);
  if (inside < 0 || middle < 0) return Number.POSITIVE_INFINITY;
  return middle - Math.sqrt(inside);
}

function isShaded(place: Vector, own: Ball | undefined, balls: readonly Ball[]): boolean {
  return balls.some((ball) => ball !== own && Number.isFinite(reach(place, LIGHT, ball)));
}

function lit(color: Color, facing: number, shaded: boolean): Color {
  const light = 0.42 + (shaded ? 0 : 0.72 * Math.max(0, facing));
  return color.map((part) => part * light) as unknown as Color;
}

function along(from: Vector, ray: Vector, distance: number): Vector {
  return [from[0] + distance * ray[0], from[1] + distance * ray[1], from[2] + distance * ray[2]];
}

function minus(a: Vector, b: Vector): Vector {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function normalised(vector: Vector): Vector {
  const length = Math.sqrt(dot(vector, vector));
  return [vector[0] / length, vector[1] / length, vector[2] / length];
}

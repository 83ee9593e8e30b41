/** What is drawn on a board: rings and strokes as vectors, and the pixels that they become. */

import type { Image } from "../../worker";

/** Coordinates in pixels of the control image, from its top left corner. Pixel i covers i to i + 1. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Ring {
  readonly center: Point;
  readonly radius: number;
}

/** Red, green and blue, 0..255. */
export type Color = readonly [red: number, green: number, blue: number];

/** #rrggbb, as the browser's colour fields have it. */
export function toHex(color: Color): string {
  return `#${color.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

export function fromHex(hex: string): Color {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as unknown as Color;
}

/** A line of the pencil, the brush or the eraser. */
export interface Stroke {
  readonly points: readonly Point[];
  /** Pixels of the control image. */
  readonly width: number;
  /** True to draw black instead of white. */
  readonly erases: boolean;
  /** The share of `width` at each point, where a pen's pressure changed it. */
  readonly pressures?: readonly number[];
  /** Of a map whose colours have meanings: drawn with a hard edge, so that no colour in between arises. */
  readonly color?: Color;
  /** What the line encloses is painted, too. */
  readonly isFilled?: boolean;
}

/** Pixels. The lines of the training pictures are one to two pixels wide. */
export const LINE_WIDTH = 1.5;
/** Pixels between two points of a stroke. */
export const SPACING = 0.75;
const BLACK: Color = [0, 0, 0];

export type Size = Pick<Image, "width" | "height">;

/** An opaque black picture. */
export function blackImage(width: number, height: number): Image {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { width, height, data };
}

/** Draw a ring with a soft line, as in the training pictures. */
export function drawRing(image: Image, { center, radius }: Ring, lineWidth = LINE_WIDTH): void {
  const corner = (sign: number) => ({ x: center.x + sign * radius, y: center.y + sign * radius });
  const depth = (x: number, y: number) => lineWidth / 2 - Math.abs(Math.hypot(x - center.x, y - center.y) - radius);
  cover(image, corner(-1), corner(1), lineWidth, lighten, depth);
}

export function drawStroke(image: Image, stroke: Stroke): void {
  const { points, width, erases, color } = stroke;
  const blend = color !== undefined ? paintHard(erases ? BLACK : color) : erases ? darken : lighten;
  if (stroke.isFilled) fillOutline(image, points, blend);
  for (const [i, to] of points.entries()) {
    const from = points[Math.max(0, i - 1)];
    const [wide, wideTo] = [widthAt(stroke, Math.max(0, i - 1)), widthAt(stroke, i)];
    cover(image, from, to, width, blend, (x, y) => {
      const { distance, share } = fromSegment(x, y, from, to);
      return (wide + share * (wideTo - wide)) / 2 - distance;
    });
  }
}

/** The width of a stroke at its i-th point, in pixels. */
export function widthAt({ width, pressures }: Stroke, i: number): number {
  return width * (pressures?.[i] ?? 1);
}

/** Move strokes to the middle of a board of another size. Their width changes in proportion. */
export function moveStrokes(strokes: readonly Stroke[], from: Size, to: Size): Stroke[] {
  return strokes.map((stroke) => ({
    ...stroke,
    points: stroke.points.map((point) => movePoint(point, from, to)),
    width: stroke.width * scaleOf(from, to),
  }));
}

export function moveRing({ center, radius }: Ring, from: Size, to: Size): Ring {
  return { center: movePoint(center, from, to), radius: radius * scaleOf(from, to) };
}

function movePoint({ x, y }: Point, from: Size, to: Size): Point {
  const scale = scaleOf(from, to);
  return { x: to.width / 2 + (x - from.width / 2) * scale, y: to.height / 2 + (y - from.height / 2) * scale };
}

function scaleOf(from: Size, to: Size): number {
  return Math.min(to.width / from.width, to.height / from.height);
}

/** Turn a ring into a line, which the eraser can remove in part. */
export function traceRing({ center, radius }: Ring, width = LINE_WIDTH): Stroke {
  const count = Math.max(3, Math.ceil((2 * Math.PI * radius) / SPACING));
  const points = Array.from({ length: count + 1 }, (_, i) => {
    const angle = (2 * Math.PI * i) / count;
    return { x: center.x + radius * Math.cos(angle), y: center.y + radius * Math.sin(angle) };
  });
  return { points, width, erases: false };
}

/** Changes the pixel whose bytes begin at `i`; `covered` is the share of it that the mark covers, 0..1. */
type Blend = (data: Uint8ClampedArray, i: number, covered: number) => void;

const lighten: Blend = (data, i, covered) => {
  for (let at = i; at < i + 3; at++) data[at] = Math.max(data[at], 255 * covered);
};
const darken: Blend = (data, i, covered) => {
  for (let at = i; at < i + 3; at++) data[at] = Math.min(data[at], 255 - 255 * covered);
};
const paintHard =
  (color: Color): Blend =>
  (data, i, covered) => {
    if (covered >= 0.5) data.set(color, i);
  };

/** Paint the pixels whose middles a closed line encloses: a ray to the left crosses it an odd number of times. */
function fillOutline({ width, height, data }: Image, points: readonly Point[], blend: Blend): void {
  for (let y = 0; y < height; y++) {
    const crossings = points.flatMap((from, i) => {
      const to = points[(i + 1) % points.length];
      const middle = y + 0.5;
      if (from.y <= middle === to.y <= middle) return [];
      return [from.x + ((middle - from.y) * (to.x - from.x)) / (to.y - from.y)];
    });
    crossings.sort((a, b) => a - b);
    for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
      const end = Math.min(width, Math.ceil(crossings[pair + 1] - 0.5));
      for (let x = Math.max(0, Math.ceil(crossings[pair] - 0.5)); x < end; x++) {
        blend(data, 4 * (y * width + x), 1);
        data[4 * (y * width + x) + 3] = 255;
      }
    }
  }
}

/**
 * Draw a mark that lies between two corners; `depth` returns how many pixels a place is inside of its edge. The edge is
 * soft over one pixel, as in the training pictures.
 */
function cover(
  { width, height, data }: Image,
  one: Point,
  other: Point,
  lineWidth: number,
  blend: Blend,
  depth: (x: number, y: number) => number,
): void {
  const reach = lineWidth / 2 + 1;
  const first = (a: number, b: number) => Math.max(0, Math.floor(Math.min(a, b) - reach));
  const end = (a: number, b: number, size: number) => Math.min(size, Math.ceil(Math.max(a, b) + reach));
  for (let y = first(one.y, other.y); y < end(one.y, other.y, height); y++) {
    for (let x = first(one.x, other.x); x < end(one.x, other.x, width); x++) {
      const covered = Math.min(1, Math.max(0, depth(x + 0.5, y + 0.5) + 0.5));
      const pixel = 4 * (y * width + x);
      blend(data, pixel, covered);
      data[pixel + 3] = Math.max(data[pixel + 3], 255 * covered); // makes a line on a transparent part visible
    }
  }
}

/** The distance from a segment, and where on it the nearest place is: 0 at its begin, 1 at its end. */
function fromSegment(x: number, y: number, from: Point, to: Point): { distance: number; share: number } {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const squared = along.x ** 2 + along.y ** 2;
  const t = squared === 0 ? 0 : ((x - from.x) * along.x + (y - from.y) * along.y) / squared;
  const share = Math.min(1, Math.max(0, t));
  return { distance: Math.hypot(x - from.x - share * along.x, y - from.y - share * along.y), share };
}

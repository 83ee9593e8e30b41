/** The brush: it follows a pointer, or keys, and makes strokes. */

import { type Signal, signal } from "@preact/signals";
import type { Drag, Touch } from "./drag";
import { type Color, type Point, type Size, SPACING, type Stroke } from "./marks";

/** What keys move the brush by, as a share of the drawing's width. */
const KEY_STEP = 1 / 64;
const FAST = 5;

const DIRECTIONS: Readonly<Record<string, readonly [x: number, y: number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** How a stroke looks. */
export interface Ink {
  /** Pixels of the drawing. */
  readonly width: number;
  readonly erases: boolean;
  readonly color?: Color;
  /** What the line encloses is painted, too. */
  readonly isFilled?: boolean;
  /** Only its two ends count. */
  readonly isStraight?: boolean;
  /** A click without a movement draws nothing. */
  readonly needsMovement?: boolean;
}

/** Takes strokes: `show` is called again and again with the growing stroke, whose changes belong to `gesture`. */
export interface Paper {
  readonly size: Size;
  show(stroke: Stroke, gesture: symbol): void;
  takeBack(gesture: symbol): void;
  /** Whether the stroke of `gesture` is still there: it may have been undone, or another picture opened. */
  isOf(gesture: symbol): boolean;
}

/** Draw a stroke that follows a drag. */
export function startStroke(paper: Paper, ink: Ink, from: Touch): Drag {
  const gesture = Symbol("stroke");
  const { width, erases, color, isFilled, isStraight } = ink;
  const spacing = Math.max(SPACING, width / 16);
  const points: Point[] = [plain(from)];
  const pressures = from.pressure === undefined ? undefined : [thickness(from.pressure)];
  let isShown = false;
  const show = () => {
    isShown = true;
    const stroke = { points: [...points], width, erases, color, isFilled };
    paper.show({ ...stroke, pressures: pressures && [...pressures] }, gesture);
  };
  if (!ink.needsMovement) show();
  return {
    move: (to) => {
      if (isShown && !paper.isOf(gesture)) return;
      const last = points[isStraight ? 0 : points.length - 1];
      if (Math.hypot(to.x - last.x, to.y - last.y) < spacing) return;
      if (isStraight) points.length = 1;
      points.push(plain(to));
      if (isStraight && pressures !== undefined) pressures.length = 1;
      pressures?.push(thickness(to.pressure ?? 1));
      show();
    },
    cancel: () => paper.takeBack(gesture),
  };
}

/** The brush that keys move: arrows, and Space to put it down and to lift it. */
export class KeyBrush {
  /** In pixels of the drawing; undefined before the first key. */
  readonly place: Signal<Point | undefined> = signal(undefined);
  readonly isDown = signal(false);
  private drag: Drag | undefined;

  /** Returns false for a key that is not the brush's. `begin` starts a stroke. */
  press(key: string, isFast: boolean, size: Size, begin: (from: Point) => Drag): boolean {
    const direction = DIRECTIONS[key];
    const place = this.place.peek() ?? { x: size.width / 2, y: size.height / 2 };
    if (key === " " || key === "Enter") {
      this.place.value = place;
      if (this.drag === undefined) this.drag = begin(place);
      else this.drag = undefined;
      this.isDown.value = this.drag !== undefined;
      return true;
    }
    if (key === "Escape" && this.drag !== undefined) {
      this.lift();
      return true;
    }
    if (direction === undefined) return false;
    const step = size.width * KEY_STEP * (isFast ? FAST : 1);
    const clamp = (value: number, most: number) => Math.min(most, Math.max(0, value));
    const to = {
      x: clamp(place.x + direction[0] * step, size.width),
      y: clamp(place.y + direction[1] * step, size.height),
    };
    this.place.value = to;
    this.drag?.move(to);
    return true;
  }

  /** Lift the brush, where the tool changes. */
  lift(): void {
    this.drag = undefined;
    this.isDown.value = false;
  }
}

function plain({ x, y }: Point): Point {
  return { x, y };
}

/** A light touch still draws a line. */
function thickness(pressure: number): number {
  return Math.max(0.2, Math.min(1, 2 * pressure)); // 0.5 is the pressure of a normal hand
}

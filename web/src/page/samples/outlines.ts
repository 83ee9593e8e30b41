/** Line drawings, made for this page. Coordinates are fractions of a square. */

import type { Point, Stroke } from "../drawing/marks";

type Line = readonly Point[];

/** What a drawing shows, in a word that models know: their prompts are English. */
export type Subject = "cat" | "cup" | "fish" | "house" | "mountains" | "room" | "star";

export interface LineDrawing {
  readonly subject: Subject;
  readonly lines: readonly Line[];
}

const line = (...numbers: readonly number[]): Line =>
  Array.from({ length: numbers.length / 2 }, (_, i) => ({ x: numbers[2 * i], y: numbers[2 * i + 1] }));

const closed = (...numbers: readonly number[]): Line => line(...numbers, numbers[0], numbers[1]);

/** A part of an ellipse, from one angle to another; a whole turn is 1, and 0 is on the right. */
function arc(x: number, y: number, across: number, down: number, from = 0, to = 1): Line {
  const count = Math.max(4, Math.ceil(64 * Math.abs(to - from)));
  return Array.from({ length: count + 1 }, (_, i) => {
    const angle = 2 * Math.PI * (from + ((to - from) * i) / count);
    return { x: x + across * Math.cos(angle), y: y + down * Math.sin(angle) };
  });
}

const HOUSE: LineDrawing = {
  subject: "house",
  lines: [
    closed(0.22, 0.46, 0.78, 0.46, 0.78, 0.86, 0.22, 0.86),
    line(0.14, 0.5, 0.5, 0.16, 0.86, 0.5),
    line(0.44, 0.86, 0.44, 0.62, 0.56, 0.62, 0.56, 0.86),
    closed(0.29, 0.55, 0.38, 0.55, 0.38, 0.66, 0.29, 0.66),
    closed(0.62, 0.55, 0.71, 0.55, 0.71, 0.66, 0.62, 0.66),
    line(0.66, 0.31, 0.66, 0.2, 0.73, 0.2, 0.73, 0.38),
  ],
};

const CAT: LineDrawing = {
  subject: "cat",
  lines: [
    arc(0.5, 0.55, 0.27, 0.25),
    line(0.27, 0.43, 0.26, 0.18, 0.43, 0.32),
    line(0.73, 0.43, 0.74, 0.18, 0.57, 0.32),
    arc(0.4, 0.5, 0.035, 0.05),
    arc(0.6, 0.5, 0.035, 0.05),
    closed(0.47, 0.6, 0.53, 0.6, 0.5, 0.64),
    arc(0.45, 0.64, 0.05, 0.045, 0, 0.5),
    arc(0.55, 0.64, 0.05, 0.045, 0, 0.5),
    line(0.36, 0.62, 0.14, 0.58),
    line(0.36, 0.66, 0.14, 0.7),
    line(0.64, 0.62, 0.86, 0.58),
    line(0.64, 0.66, 0.86, 0.7),
  ],
};

const CUP: LineDrawing = {
  subject: "cup",
  lines: [
    arc(0.45, 0.34, 0.25, 0.07),
    line(0.2, 0.34, 0.24, 0.72),
    line(0.7, 0.34, 0.66, 0.72),
    arc(0.45, 0.72, 0.21, 0.08, 0, 0.5),
    arc(0.68, 0.5, 0.16, 0.13, -0.25, 0.25),
    arc(0.45, 0.8, 0.36, 0.09, 0.02, 0.48),
  ],
};

const MOUNTAINS: LineDrawing = {
  subject: "mountains",
  lines: [
    line(0, 0.78, 0.28, 0.34, 0.5, 0.66, 0.68, 0.42, 1, 0.8),
    line(0.2, 0.47, 0.26, 0.52, 0.3, 0.46, 0.36, 0.46),
    arc(0.78, 0.2, 0.09, 0.09),
    line(0, 0.9, 0.3, 0.86, 0.6, 0.91, 1, 0.87),
  ],
};

const STAR: LineDrawing = {
  subject: "star",
  lines: [
    closed(
      ...[0.5, 0.12, 0.61, 0.4, 0.91, 0.42, 0.68, 0.61, 0.76, 0.9],
      ...[0.5, 0.74, 0.24, 0.9, 0.32, 0.61, 0.09, 0.42, 0.39, 0.4],
    ),
  ],
};

const FISH: LineDrawing = {
  subject: "fish",
  lines: [
    arc(0.44, 0.54, 0.32, 0.2, 0.06, 0.94),
    line(0.74, 0.47, 0.92, 0.34, 0.9, 0.54, 0.92, 0.74, 0.74, 0.61),
    line(0.36, 0.355, 0.5, 0.22, 0.6, 0.37),
    arc(0.26, 0.49, 0.025, 0.025),
    arc(0.3, 0.55, 0.13, 0.15, -0.2, 0.2),
    line(0.5, 0.56, 0.6, 0.64, 0.49, 0.67),
  ],
};

/** Straight lines only. */
const ROOM: LineDrawing = {
  subject: "room",
  lines: [
    closed(0.28, 0.3, 0.72, 0.3, 0.72, 0.64, 0.28, 0.64),
    line(0, 0.08, 0.28, 0.3),
    line(1, 0.08, 0.72, 0.3),
    line(0, 0.96, 0.28, 0.64),
    line(1, 0.96, 0.72, 0.64),
    closed(0.42, 0.38, 0.58, 0.38, 0.58, 0.54, 0.42, 0.54),
    line(0.5, 0.38, 0.5, 0.54),
    closed(0.82, 0.34, 0.93, 0.28, 0.93, 0.9, 0.82, 0.75),
  ],
};

export const DRAWINGS: readonly LineDrawing[] = [HOUSE, CAT, CUP, MOUNTAINS];
export const SCRIBBLES: readonly LineDrawing[] = [CAT, CUP, HOUSE, STAR, FISH];
export const STRAIGHT_DRAWINGS: readonly LineDrawing[] = [ROOM, HOUSE];

/** Whether a prompt is no more than the subject of a drawing: then the next drawing's may take its place. */
export function isSubject(prompt: string): boolean {
  return [...DRAWINGS, ...SCRIBBLES, ...STRAIGHT_DRAWINGS].some(({ subject }) => subject === prompt);
}

/** Lines as strokes in the middle of a board; `width` is a share of the board's shorter side. */
export function strokesOf(
  lines: readonly Line[],
  board: { readonly width: number; readonly height: number },
  width: number,
): Stroke[] {
  const side = Math.min(board.width, board.height);
  const [left, top] = [(board.width - side) / 2, (board.height - side) / 2];
  return lines.map((points) => ({
    points: points.map(({ x, y }) => ({ x: left + side * x, y: top + side * y })),
    width: Math.max(1.5, width * side),
    erases: false,
  }));
}

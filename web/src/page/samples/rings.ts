/** Rings, as the bundled model knows them: centre and radius as fractions of the board. The page opens with the first. */

export type RingNumbers = readonly [x: number, y: number, radius: number];

export const RINGS: readonly RingNumbers[] = [
  [0.5, 0.5, 0.28],
  [0.34, 0.36, 0.19],
  [0.62, 0.58, 0.34],
  [0.7, 0.3, 0.14],
];

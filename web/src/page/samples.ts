/** Sample outlines. */

import { paintImage } from "./canvas";
import type { DrawingBoard } from "./drawing_board";
import { drawShape } from "./outline";

/** Rings: centre and radius as fractions of the board. The page opens with the first. */
export const SAMPLES = [
  [0.5, 0.5, 0.28],
  [0.34, 0.36, 0.19],
  [0.62, 0.58, 0.34],
  [0.7, 0.3, 0.14],
] as const;

/** Add one button per sample to `container`. It puts the sample on the board. */
export function addSamples(container: HTMLElement, board: DrawingBoard): void {
  for (const [number, [x, y, radius]] of SAMPLES.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaLabel = `Sample outline ${number + 1}`;
    const thumbnail = document.createElement("canvas");
    const ring = { center: { x: 48 * x, y: 48 * y }, radius: 48 * radius };
    paintImage(thumbnail, drawShape({ kind: "ring", ring }, 48, 48));
    button.append(thumbnail);
    button.addEventListener("click", () => board.showRing(x, y, radius));
    container.append(button);
  }
}

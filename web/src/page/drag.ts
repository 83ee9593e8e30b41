/** Dragging on a canvas, with a mouse, a finger or a pen. */

import type { Point } from "./outline";

/** What a drag that has begun does. */
export interface Drag {
  move(to: Point): void;
  /** The browser took the pointer away, to scroll for instance: as if there had been no drag. */
  cancel(): void;
}

/** One drag at a time: of two fingers the first one's. Points are fractions of the canvas's width and height. */
export function listenToDrags(canvas: HTMLCanvasElement, begin: (from: Point) => Drag): void {
  let isDragging = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || isDragging) return;
    isDragging = true;
    event.preventDefault(); // no text selection; focus is set by hand
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const drag = begin(pointOf(canvas, event));
    const over = new AbortController();
    const listen = (type: "pointermove" | "pointerup" | "pointercancel", hear: (event: PointerEvent) => void) =>
      canvas.addEventListener(type, (heard) => heard.pointerId === event.pointerId && hear(heard), over);
    const stop = () => {
      over.abort();
      isDragging = false;
    };
    listen("pointermove", (move) => drag.move(pointOf(canvas, move)));
    listen("pointerup", stop);
    listen("pointercancel", () => {
      stop();
      drag.cancel();
    });
  });
}

function pointOf(canvas: HTMLCanvasElement, event: PointerEvent): Point {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

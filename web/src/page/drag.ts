/** Drags on a canvas, with a mouse, a finger or a pen. */

import type { Point } from "./outline";

/** The reactions to a drag that has begun. */
export interface Drag {
  move(to: Point): void;
  /** Undo the drag: the browser took the pointer away, for example to scroll. */
  cancel(): void;
}

/** Call `begin` for each drag; a second finger is ignored. Points are fractions of the canvas's width and height. */
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

/** Drags on a canvas, with a mouse, a finger or a pen. */

import type { Point } from "./marks";

/** A place on a canvas, and how hard a pen presses there. */
export interface Touch extends Point {
  /** 0..1; undefined of what does not feel pressure. */
  readonly pressure?: number;
}

/** The reactions to a drag that has begun. */
export interface Drag {
  move(to: Touch): void;
  /** Undo the drag: the browser took the pointer away, for example to scroll. */
  cancel(): void;
}

/** Call `begin` for each drag; a second finger is ignored. Points are fractions of the canvas's width and height. */
export function listenToDrags(canvas: HTMLCanvasElement, begin: (from: Touch) => Drag): void {
  let isDragging = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || isDragging) return;
    isDragging = true;
    event.preventDefault(); // no text selection; focus is set by hand
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const drag = begin(touchOf(canvas, event));
    const over = new AbortController();
    const listen = (type: "pointermove" | "pointerup" | "pointercancel", hear: (event: PointerEvent) => void) =>
      canvas.addEventListener(type, (heard) => heard.pointerId === event.pointerId && hear(heard), over);
    const stop = () => {
      over.abort();
      isDragging = false;
    };
    listen("pointermove", (move) => {
      const passed = move.getCoalescedEvents?.() ?? []; // a pen reports more often than the screen is painted
      for (const each of passed.length ? passed : [move]) drag.move(touchOf(canvas, each));
    });
    listen("pointerup", stop);
    listen("pointercancel", () => {
      stop();
      drag.cancel();
    });
  });
}

function touchOf(canvas: HTMLCanvasElement, event: PointerEvent): Touch {
  const box = canvas.getBoundingClientRect();
  const place = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  return event.pointerType === "pen" ? { ...place, pressure: event.pressure } : place;
}

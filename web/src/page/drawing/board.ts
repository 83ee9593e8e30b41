/** A canvas that a drawing is shown and changed on, with a mouse, a finger, a pen or keys. */

import { effect } from "@preact/signals";
import { type Drag, listenToDrags, type Touch } from "./drag";
import type { Point, Size } from "./marks";

/** What a board shows. Places are in pixels of the drawing. */
export interface Drawable {
  /** The drawing's size in pixels. */
  readonly size: Size;
  /** The place of the brush that keys move; undefined while keys do something else. */
  readonly cursor: Point | undefined;
  startDrag(from: Touch): Drag;
  /** Returns false for a key that means nothing here. */
  pressKey(key: string, isFast: boolean): boolean;
  paint(context: CanvasRenderingContext2D): void;
}

const CURSOR_COLORS = ["#000000", "#ffd21f"];

/** Show `drawing` on `canvas`, at the screen's resolution, until the returned function is called. */
export function attachBoard(canvas: HTMLCanvasElement, drawing: Drawable): () => void {
  const toPixels = (touch: Touch): Touch => {
    const { width, height } = drawing.size;
    return { ...touch, x: touch.x * width, y: touch.y * height };
  };
  listenToDrags(canvas, (from) => {
    const drag = drawing.startDrag(toPixels(from));
    return { move: (to) => drag.move(toPixels(to)), cancel: () => drag.cancel() };
  });
  const pressKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (drawing.pressKey(event.key, event.shiftKey)) event.preventDefault();
  };
  const repaint = () => paint(canvas, drawing);
  canvas.addEventListener("keydown", pressKey);
  canvas.addEventListener("focus", repaint);
  canvas.addEventListener("blur", repaint);
  const observer = new ResizeObserver(repaint);
  observer.observe(canvas);
  const stop = effect(repaint);
  return () => {
    stop();
    observer.disconnect();
    canvas.removeEventListener("keydown", pressKey);
    canvas.removeEventListener("focus", repaint);
    canvas.removeEventListener("blur", repaint);
  };
}

function paint(canvas: HTMLCanvasElement, drawing: Drawable): void {
  const { width, height } = drawing.size;
  const pixels = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.width = pixels;
  canvas.height = Math.round((pixels * height) / width);
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.scale(pixels / width, pixels / width);
  context.imageSmoothingQuality = "high";
  drawing.paint(context);
  const { cursor } = drawing;
  if (cursor !== undefined && document.activeElement === canvas) paintCursor(context, cursor, width / pixels);
}

/** A cross where the keys' brush is; `pixel` is a pixel of the screen. */
function paintCursor(context: CanvasRenderingContext2D, { x, y }: Point, pixel: number): void {
  for (const [i, color] of CURSOR_COLORS.entries()) {
    context.strokeStyle = color;
    context.lineWidth = (5 - 3 * i) * pixel;
    context.beginPath();
    context.moveTo(x - 12 * pixel, y);
    context.lineTo(x + 12 * pixel, y);
    context.moveTo(x, y - 12 * pixel);
    context.lineTo(x, y + 12 * pixel);
    context.stroke();
  }
}

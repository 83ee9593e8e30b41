/** The canvas that the visitor draws on: rings and pencil strokes as vectors, pictures as pixels. */

import type { Image } from "../worker";
import { toCanvas } from "./canvas";
import { drawShape, EMPTY, LINE_WIDTH, type Point, type Ring, type Shape } from "./outline";

export type Tool = "ring" | "pencil";

/** Pixels of the control image: a shorter drag is a click, and draws nothing. */
const MIN_RADIUS = 3;
/** Pixels between two points of a pencil stroke. */
const PENCIL_SPACING = 0.75;

export class DrawingBoard {
  tool: Tool = "ring";
  /** Called whenever another shape is on the board. */
  onChange: (shape: Shape) => void = () => {};
  private shape: Shape = EMPTY;
  private width: number;
  private height: number;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.width = canvas.width;
    this.height = canvas.height;
    canvas.addEventListener("pointerdown", (event) => this.startDrag(event));
    canvas.addEventListener("keydown", (event) => this.pressKey(event));
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  /** Pixels of the control image; what is drawn already keeps its place in proportion. */
  setSize(width: number, height: number): void {
    const scale = Math.min(width / this.width, height / this.height);
    this.width = width;
    this.height = height;
    if (scale !== 1 && this.shape.kind === "ring") {
      const { center, radius } = this.shape.ring;
      const ring = { center: { x: center.x * scale, y: center.y * scale }, radius: radius * scale };
      this.show({ kind: "ring", ring });
    }
  }

  /** Put a shape on the board in place of what is there. */
  show(shape: Shape): void {
    this.shape = shape;
    this.canvas.setAttribute("aria-label", describe(shape));
    this.paint();
    this.onChange(shape);
  }

  /** A ring whose numbers are fractions of the board's width. */
  showRing(x: number, y: number, radius: number): void {
    const ring = { center: { x: x * this.width, y: y * this.height }, radius: radius * this.width };
    this.show({ kind: "ring", ring });
  }

  /** What the model is given. */
  controlImage(): Image {
    return drawShape(this.shape, this.width, this.height);
  }

  isEmpty(): boolean {
    return this.shape.kind === "strokes" && this.shape.strokes.length === 0;
  }

  private startDrag(event: PointerEvent): void {
    if (event.button !== 0) return;
    event.preventDefault(); // no text selection; focus is set by hand
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const before = this.shape;
    const drag = this.tool === "ring" ? this.dragRing(this.pointOf(event)) : this.dragPencil(this.pointOf(event));
    const stop = new AbortController();
    const { signal } = stop;
    this.canvas.addEventListener("pointermove", (move) => drag(this.pointOf(move)), { signal });
    this.canvas.addEventListener("pointerup", () => stop.abort(), { signal });
    const giveUp = () => {
      stop.abort();
      this.show(before);
    };
    this.canvas.addEventListener("pointercancel", giveUp, { signal });
  }

  /** From the middle outwards. */
  private dragRing(center: Point): (to: Point) => void {
    return (to) => {
      const radius = Math.hypot(to.x - center.x, to.y - center.y);
      if (radius >= MIN_RADIUS) this.show({ kind: "ring", ring: { center, radius } });
    };
  }

  private dragPencil(from: Point): (to: Point) => void {
    const earlier = this.shape.kind === "strokes" ? this.shape.strokes : [];
    const stroke = [from];
    return (to) => {
      const last = stroke[stroke.length - 1];
      if (Math.hypot(to.x - last.x, to.y - last.y) < PENCIL_SPACING) return;
      stroke.push(to);
      this.show({ kind: "strokes", strokes: [...earlier, stroke] });
    };
  }

  private pressKey(event: KeyboardEvent): void {
    const move = RING_KEYS[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const middle: Ring = { center: { x: this.width / 2, y: this.height / 2 }, radius: this.width / 4 };
    const ring = this.shape.kind === "ring" ? move(this.shape.ring) : middle;
    this.show({ kind: "ring", ring: { ...ring, radius: Math.max(MIN_RADIUS, ring.radius) } });
  }

  private pointOf(event: PointerEvent): Point {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.width,
      y: ((event.clientY - box.top) / box.height) * this.height,
    };
  }

  /** Paint at the screen's resolution; the model gets its own, coarser drawing. */
  private paint(): void {
    const context = this.canvas.getContext("2d") as CanvasRenderingContext2D;
    const pixels = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    this.canvas.width = pixels;
    this.canvas.height = Math.round((pixels * this.height) / this.width);
    context.fillStyle = "black";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const scale = pixels / this.width;
    context.scale(scale, scale);
    if (this.shape.kind === "picture") this.paintPicture(context, this.shape.picture);
    else paintLines(context, this.shape);
  }

  /** As the engine will cut it: covering the board, centred. */
  private paintPicture(context: CanvasRenderingContext2D, picture: Image): void {
    const scale = Math.max(this.width / picture.width, this.height / picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(toCanvas(picture), (this.width - width) / 2, (this.height - height) / 2, width, height);
  }
}

const RING_KEYS: Record<string, (ring: Ring) => Ring> = {
  ArrowLeft: ({ center, radius }) => ({ center: { ...center, x: center.x - 1 }, radius }),
  ArrowRight: ({ center, radius }) => ({ center: { ...center, x: center.x + 1 }, radius }),
  ArrowUp: ({ center, radius }) => ({ center: { ...center, y: center.y - 1 }, radius }),
  ArrowDown: ({ center, radius }) => ({ center: { ...center, y: center.y + 1 }, radius }),
  "+": ({ center, radius }) => ({ center, radius: radius + 1 }),
  "-": ({ center, radius }) => ({ center, radius: radius - 1 }),
};

function paintLines(context: CanvasRenderingContext2D, shape: Exclude<Shape, { kind: "picture" }>): void {
  context.strokeStyle = "white";
  context.lineWidth = LINE_WIDTH;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.beginPath();
  if (shape.kind === "ring") {
    const { center, radius } = shape.ring;
    context.arc(center.x, center.y, radius, 0, 2 * Math.PI);
  } else {
    for (const [first, ...others] of shape.strokes) {
      context.moveTo(first.x, first.y);
      for (const point of others) context.lineTo(point.x, point.y);
    }
  }
  context.stroke();
}

function describe(shape: Shape): string {
  if (shape.kind === "picture") return `Drawing board: a picture of ${shape.picture.width} by ${shape.picture.height}`;
  if (shape.kind === "strokes") return shape.strokes.length ? "Drawing board: pencil lines" : "Drawing board: empty";
  const { center, radius } = shape.ring;
  const [x, y, r] = [center.x, center.y, radius].map(Math.round);
  return `Drawing board: a ring of radius ${r} around ${x}, ${y}`;
}

/** The canvas that the visitor draws on: rings and strokes as vectors, pictures as pixels. */

import type { Image } from "../worker";
import { paintStroke, toCanvas } from "./canvas";
import { type Drag, listenToDrags } from "./drag";
import { History } from "./history";
import { fitPicture } from "./opened_picture";
import {
  drawShape,
  moveShape,
  type Point,
  type Ring,
  type Shape,
  SPACING,
  type Stroke,
  strokeWidth,
  traceRing,
} from "./outline";

export type Tool = "ring" | "pencil" | "eraser";

/** Pixels of the control image. A shorter drag counts as a click and draws nothing. */
const MIN_RADIUS = 3;

export class DrawingBoard {
  tool: Tool = "ring";
  /** Called after every change of the shape on the board. */
  onChange: (shape: Shape) => void = () => {};
  private readonly history: History<Shape>;
  /** The picture that was painted last. */
  private painted: { picture: Image; canvas: OffscreenCanvas } | undefined;
  private width: number;
  private height: number;

  /** Create a board with a ring, whose numbers are fractions of the board's width. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    ...ring: readonly [x: number, y: number, radius: number]
  ) {
    this.width = canvas.width;
    this.height = canvas.height;
    this.history = new History(this.ringAt(...ring));
    this.present();
    listenToDrags(canvas, (from) => this.startDrag(from));
    canvas.addEventListener("keydown", (event) => this.pressKey(event));
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  /** Set the size in pixels of the control image. Shapes on the board keep their place in proportion. */
  setSize(width: number, height: number): void {
    const before = this.size;
    if (width === before.width && height === before.height) return;
    this.width = width;
    this.height = height;
    this.history.map((shape) => moveShape(shape, before, this.size));
    this.present();
  }

  /** The size in pixels of the control image. */
  get size(): { width: number; height: number } {
    return { width: this.width, height: this.height };
  }

  /** Replace the shape on the board. Changes of one `gesture` are undone together. */
  show(shape: Shape, gesture?: unknown): void {
    this.history.change(shape, gesture);
    this.present();
  }

  get canUndo(): boolean {
    return this.history.canUndo;
  }

  /** Undo the last change, if there is one. */
  undo(): void {
    if (this.history.undo()) this.present();
  }

  /** Replace the shape by a ring, whose numbers are fractions of the board's width. */
  showRing(x: number, y: number, radius: number): void {
    this.show(this.ringAt(x, y, radius));
  }

  /** Draw the shape as the model's control image. */
  controlImage(): Image {
    return drawShape(this.shape, this.width, this.height);
  }

  /** The changes that made an opened picture fit, one sentence each. */
  get notices(): readonly string[] {
    return this.shape.kind === "picture" ? this.shape.fitted.notices : [];
  }

  isEmpty(): boolean {
    const isPhoto = this.shape.kind === "picture" && !this.shape.look.edges;
    return !isPhoto && !this.controlImage().data.some(isLit);
  }

  private ringAt(x: number, y: number, radius: number): Shape {
    const ring = { center: { x: x * this.width, y: y * this.height }, radius: radius * this.width };
    return { kind: "ring", ring };
  }

  private get shape(): Shape {
    return this.history.present;
  }

  private present(): void {
    this.history.amend(fitPicture(this.shape, this.size));
    this.canvas.setAttribute("aria-label", describe(this.shape));
    this.paint();
    this.onChange(this.shape);
  }

  private startDrag(from: Point): Drag {
    const gesture = Symbol("drag");
    const start = this.pixelAt(from);
    const move =
      this.tool === "ring" ? this.dragRing(start, gesture) : this.dragStroke(start, gesture, this.tool === "eraser");
    return {
      move: (to) => move(this.pixelAt(to)),
      cancel: () => this.history.isOf(gesture) && this.undo(),
    };
  }

  /** Draw a ring around the point at which the drag began. */
  private dragRing(center: Point, gesture: symbol): (to: Point) => void {
    return (to) => {
      const radius = Math.hypot(to.x - center.x, to.y - center.y);
      if (radius >= MIN_RADIUS) this.show({ kind: "ring", ring: { center, radius } }, gesture);
    };
  }

  private dragStroke(from: Point, gesture: symbol, erases: boolean): (to: Point) => void {
    const before = this.shape;
    const points = [from];
    const width = strokeWidth(erases, this.size);
    const showStroke = () => this.show(addStroke(before, { points, width, erases }), gesture);
    if (erases) showStroke(); // a click erases a dot
    return (to) => {
      const last = points[points.length - 1];
      if (Math.hypot(to.x - last.x, to.y - last.y) < SPACING) return;
      points.push(to);
      showStroke();
    };
  }

  private pressKey(event: KeyboardEvent): void {
    const move = RING_KEYS[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const middle: Ring = { center: { x: this.width / 2, y: this.height / 2 }, radius: this.width / 4 };
    const ring = this.shape.kind === "ring" ? move(this.shape.ring) : middle;
    this.show({ kind: "ring", ring: { ...ring, radius: Math.max(MIN_RADIUS, ring.radius) } }, "keys");
  }

  private pixelAt({ x, y }: Point): Point {
    return { x: x * this.width, y: y * this.height };
  }

  /** Paint at the screen's resolution. controlImage draws again at the model's resolution, which is lower. */
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
    const strokes = this.shape.kind === "ring" ? [traceRing(this.shape.ring)] : this.shape.strokes;
    for (const stroke of strokes) paintStroke(context, stroke, stroke.erases ? "black" : "white");
  }

  private paintPicture(context: CanvasRenderingContext2D, picture: Image): void {
    context.imageSmoothingQuality = "high";
    if (this.painted?.picture !== picture) this.painted = { picture, canvas: toCanvas(picture) };
    context.drawImage(this.painted.canvas, 0, 0, this.width, this.height);
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

/** Add a stroke. The pencil replaces a ring, because a model of rings expects a single outline. */
function addStroke(shape: Shape, stroke: Stroke): Shape {
  if (shape.kind !== "ring") return { ...shape, strokes: [...shape.strokes, stroke] };
  return { kind: "strokes", strokes: stroke.erases ? [traceRing(shape.ring), stroke] : [stroke] };
}

/** Return true for a color value above 0; `i` is its index in RGBA data. */
function isLit(value: number, i: number): boolean {
  return i % 4 !== 3 && value > 0;
}

function describe(shape: Shape): string {
  if (shape.kind === "picture") {
    const { width, height } = shape.source;
    return `Drawing board: ${shape.look.edges ? "the edges of " : ""}a picture of ${width} by ${height}`;
  }
  if (shape.kind === "strokes")
    return `Drawing board: ${shape.strokes.some(({ erases }) => !erases) ? "lines" : "empty"}`;
  const { center, radius } = shape.ring;
  const [x, y, r] = [center.x, center.y, radius].map(Math.round);
  return `Drawing board: a ring of radius ${r} around ${x}, ${y}`;
}

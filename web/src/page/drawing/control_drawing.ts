/** The drawing of a control unit: rings and strokes, or a picture with what its annotator makes of it. */

import { batch, computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { FittedImage, Image, Notice } from "../../worker";
import { annotate } from "../annotators/annotate";
import { type Annotation, type AnnotatorName, annotationOf, PASS_THROUGH } from "../annotators/annotation";
import { type Ink, type Paper, startStroke } from "./brush";
import { BrushBoard } from "./brush_board";
import { paintStroke, toCanvas } from "./canvas";
import {
  addStroke,
  drawShape,
  EMPTY,
  moveShape,
  type PictureShape,
  type RingShape,
  ringShape,
  type Shape,
  type StrokeShape,
} from "./control_shape";
import type { Drag, Touch } from "./drag";
import { type Fit, fitPicture } from "./fit";
import { type Color, LINE_WIDTH, type Ring, type Size, traceRing } from "./marks";

export const TOOLS = ["ring", "pencil", "line", "area", "eraser"] as const;
export type Tool = (typeof TOOLS)[number];

/** Pixels of the control image. A shorter drag counts as a click and draws nothing. */
const MIN_RADIUS = 3;
/** The brush's width as a share of the board's width: what a slider begins with, for drawing and for erasing. */
const ERASER_SHARE = 1 / 16;
/** The number of annotated pictures that are kept for an undo. */
const MOST_KEPT = 8;
/** The picture's name in errors and notices. */
const SUBJECT = "control image";

/** A picture at the board's size, and what the annotator made of it. */
interface Background {
  readonly key: string;
  readonly source: Image;
  readonly fitted: FittedImage;
  readonly image: Image;
  readonly canvas: OffscreenCanvas;
}

/** Its size is that of the control image. */
export class ControlDrawing extends BrushBoard<Shape> {
  readonly tool: Signal<Tool> = signal("ring");
  /** Pixels of the control image. */
  readonly lineWidth = signal(LINE_WIDTH);
  /** The colour of a map whose colours have meanings; undefined: white. */
  readonly color: Signal<Color | undefined> = signal(undefined);
  /** Whether the model wants one ring and nothing else: then a new one replaces what was there. */
  readonly isOneRing = signal(true);
  /** Why the annotator failed, if it did. */
  readonly failure: Signal<unknown> = signal(undefined);
  private readonly background: Signal<Background | undefined> = signal(undefined);
  /** Results that an undo may need again. */
  private readonly kept: Background[] = [];
  /** What the annotator works on. */
  private work: { readonly key: string; readonly source: Image } | undefined;
  private readonly waiting: Signal<Promise<void> | undefined> = signal(undefined);
  /** The control image of what is on the board; undefined while an annotator works. */
  readonly image: ReadonlySignal<Image | undefined>;

  /** Create a drawing with a ring, whose numbers are fractions of the board's width. */
  constructor(size: Size, ...ring: readonly [x: number, y: number, radius: number]) {
    super(size, ringShape(size, ...ring));
    this.image = computed(() => {
      const { shape, size } = this;
      if (shape.kind !== "picture") return drawShape(shape, size);
      const background = this.backgroundOf(shape);
      return background && drawShape(shape, size, background.image);
    });
    effect(() => {
      const { shape, size } = this;
      if (shape.kind === "picture") {
        this.annotate(shape, size);
        return;
      }
      this.work = undefined; // a picture that comes back by undo has an annotator again
      this.finish(undefined, undefined);
    });
  }

  get shape(): Shape {
    return this.history.present;
  }

  get cursor() {
    return this.tool.value === "ring" ? undefined : this.keys.place.value;
  }

  /** Whether an annotator works. */
  get isBusy(): boolean {
    return this.waiting.value !== undefined;
  }

  /** Set the size in pixels of the control image. Shapes on the board keep their place in proportion. */
  setSize(size: Size): void {
    const before = this.sizeSignal.peek();
    if (size.width === before.width && size.height === before.height) return;
    batch(() => {
      this.sizeSignal.value = size;
      this.history.map((shape) => moveShape(shape, before, size));
    });
  }

  setTool(tool: Tool): void {
    this.keys.lift();
    this.tool.value = tool;
  }

  /** Replace the shape on the board. Changes of one `gesture` are undone together. */
  show(shape: Shape, gesture?: unknown): void {
    this.history.change(shape, gesture);
  }

  /** Put a picture on the board. Throws UserError if it is too small. */
  open(source: Image, annotation: Annotation = PASS_THROUGH, fit: Fit = "crop"): void {
    fitPicture(source, this.sizeSignal.peek(), fit, SUBJECT); // a picture that cannot be used is told at once
    this.show({ kind: "picture", source, fit, annotation, strokes: [] });
  }

  /** Give pictures one of these annotators: where they have another, the first. */
  useAnnotators(names: readonly AnnotatorName[]): void {
    const first = annotationOf(names[0], this.sizeSignal.peek());
    this.history.map((shape) => {
      if (shape.kind !== "picture" || names.includes(shape.annotation.name)) return shape;
      return { ...shape, annotation: first };
    });
  }

  /** Begin with another example than the present one, unless the visitor has begun already. Returns whether it does. */
  beginWith(shape: StrokeShape | RingShape): boolean {
    const present = this.history.peek();
    if (present.kind === "picture" || !present.isExample || this.history.canUndo) return false;
    this.history.reset(shape);
    return true;
  }

  clear(): void {
    this.show(EMPTY);
  }

  /** Paint the whole board with the colour of the brush, for a background. */
  fill(): void {
    const { width, height } = this.sizeSignal.peek();
    const color = this.color.peek();
    const stroke = { points: [{ x: width / 2, y: height / 2 }], width: 2 * (width + height), erases: false, color };
    this.show({ kind: "strokes", strokes: [stroke] });
  }

  /** Wait for the annotator, and return the control image. Throws what the annotator threw. */
  async controlImage(): Promise<Image> {
    while (this.waiting.peek() !== undefined) await this.waiting.peek();
    const image = this.image.peek();
    if (image === undefined) throw this.failure.peek();
    return image;
  }

  /** The changes that made an opened picture fit. */
  get notices(): readonly Notice[] {
    return this.shape.kind === "picture" ? (this.backgroundOf(this.shape)?.fitted.notices ?? []) : [];
  }

  /** Whether there is nothing that the picture could follow. */
  isEmpty(): boolean {
    if (this.shape.kind === "picture" && this.shape.annotation.name === "none") return false;
    return !this.image.value?.data.some((value, i) => i % 4 !== 3 && value > 0);
  }

  protected dragFrom(from: Touch): Drag {
    return this.tool.peek() === "ring" ? this.dragRing(from) : startStroke(this.strokes(), this.ink(), from);
  }

  pressKey(key: string, isFast: boolean): boolean {
    if (this.tool.peek() !== "ring") {
      return this.keys.press(key, isFast, this.sizeSignal.peek(), (from) =>
        startStroke(this.strokes(), { ...this.ink(), needsMovement: false }, from),
      );
    }
    const move = RING_KEYS[key];
    if (move === undefined) return false;
    const { width, height } = this.sizeSignal.peek();
    const middle: Ring = { center: { x: width / 2, y: height / 2 }, radius: width / 4 };
    const shape = this.history.peek();
    const ring = shape.kind === "ring" ? move(shape.ring, isFast ? 5 : 1) : middle;
    this.show({ kind: "ring", ring: { ...ring, radius: Math.max(MIN_RADIUS, ring.radius) } }, "keys");
    return true;
  }

  paint(context: CanvasRenderingContext2D): void {
    const { shape, size } = this;
    if (shape.kind === "picture") {
      const canvas = this.backgroundOf(shape)?.canvas ?? this.background.value?.canvas; // the one before, meanwhile
      if (canvas !== undefined) context.drawImage(canvas, 0, 0, size.width, size.height);
    }
    const strokes = shape.kind === "ring" ? [traceRing(shape.ring)] : shape.strokes;
    for (const stroke of strokes) {
      const { erases, color } = stroke;
      paintStroke(context, stroke, erases ? "black" : color === undefined ? "white" : `rgb(${color.join(" ")})`);
    }
  }

  private ink(): Ink {
    const tool = this.tool.peek();
    const [line, { width }] = [this.lineWidth.peek(), this.sizeSignal.peek()];
    const color = this.color.peek();
    if (tool === "eraser") return { width: Math.max(ERASER_SHARE * width, line), erases: true, color };
    if (tool === "area") return { width: 1, erases: false, color, isFilled: true, needsMovement: true };
    return { width: line, erases: false, color, isStraight: tool === "line", needsMovement: line <= LINE_WIDTH };
  }

  private strokes(): Paper {
    return this.paper((before, stroke) => addStroke(before, stroke, this.isOneRing.peek()));
  }

  /** Draw a ring around the point at which the drag began. */
  private dragRing({ x, y }: Touch): Drag {
    const gesture = Symbol("ring");
    const before = this.history.peek();
    return {
      move: (to) => {
        const ring = { center: { x, y }, radius: Math.hypot(to.x - x, to.y - y) };
        if (ring.radius < MIN_RADIUS) return;
        const isAlone = this.isOneRing.peek() || (before.kind !== "picture" && drawsNothing(before));
        const shape: Shape = isAlone
          ? { kind: "ring", ring }
          : addStroke(before, traceRing(ring, this.lineWidth.peek()), false);
        this.show(shape, gesture);
      },
      cancel: () => this.history.takeBack(gesture),
    };
  }

  private backgroundOf(shape: PictureShape): Background | undefined {
    const background = this.background.value;
    return background?.source === shape.source && background.key === keyOf(shape, this.size) ? background : undefined;
  }

  /** Fit the picture and apply its annotator, unless that was done already. */
  private annotate(shape: PictureShape, size: Size): void {
    const key = keyOf(shape, size);
    const { source } = shape;
    const isOfShape = (other: { key: string; source: Image } | undefined) =>
      other?.key === key && other.source === source;
    const found = this.kept.find(isOfShape);
    if (found !== undefined) {
      this.work = undefined;
      this.finish(found, undefined);
      return;
    }
    if (isOfShape(this.work)) return;
    const work = { key, source };
    this.work = work;
    this.waiting.value = this.makeBackground(shape, size, key).then(
      (background) => {
        this.kept.push(background);
        if (this.kept.length > MOST_KEPT) this.kept.shift();
        if (this.work === work) this.finish(background, undefined);
      },
      (error) => {
        if (this.work === work) this.finish(undefined, error);
      },
    );
  }

  private async makeBackground(shape: PictureShape, size: Size, key: string): Promise<Background> {
    const { source, fit, annotation } = shape;
    const fitted = fitPicture(source, size, fit, SUBJECT);
    const image = await annotate(fitted.image, annotation);
    return { key, source, fitted, image, canvas: toCanvas(image) };
  }

  private finish(background: Background | undefined, failure: unknown): void {
    batch(() => {
      if (background !== undefined) this.background.value = background;
      this.failure.value = failure;
      this.waiting.value = undefined;
    });
  }
}

const RING_KEYS: Record<string, (ring: Ring, step: number) => Ring> = {
  ArrowLeft: ({ center, radius }, step) => ({ center: { ...center, x: center.x - step }, radius }),
  ArrowRight: ({ center, radius }, step) => ({ center: { ...center, x: center.x + step }, radius }),
  ArrowUp: ({ center, radius }, step) => ({ center: { ...center, y: center.y - step }, radius }),
  ArrowDown: ({ center, radius }, step) => ({ center: { ...center, y: center.y + step }, radius }),
  "+": ({ center, radius }, step) => ({ center, radius: radius + step }),
  "-": ({ center, radius }, step) => ({ center, radius: radius - step }),
};

function keyOf({ fit, annotation }: PictureShape, { width, height }: Size): string {
  return JSON.stringify([width, height, fit, annotation.name, annotation.parameters, annotation.inverted]);
}

function drawsNothing(shape: Shape): boolean {
  return shape.kind === "ring" || (shape.kind === "strokes" && shape.strokes.every(({ erases }) => erases));
}

/** The picture that a drawing starts from, and the mask of the part that is repainted. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { type FittedImage, fitImage, type Image, MASK_THRESHOLD, type Notice } from "../../worker";
import { startStroke } from "./brush";
import { BrushBoard } from "./brush_board";
import { paintStroke, toCanvas } from "./canvas";
import type { Drag, Touch } from "./drag";
import { blackImage, drawStroke, type Point, type Size, type Stroke } from "./marks";

/** The mask's colour over the picture. Few photos contain it. */
const MASK_COLOR = "#ff2d95";
const MASK_OPACITY = 0.6;
/** The picture's name in errors and notices. */
const SUBJECT = "photo";

interface State {
  readonly source: Image | undefined;
  readonly strokes: readonly Stroke[];
}

/** Its size is that of the model's pictures. */
export class Photo extends BrushBoard<State> {
  /** Whether the brush removes the mask instead of adding to it. */
  readonly erases = signal(false);
  /** The brush's width as a fraction of the picture's width. */
  readonly brushWidth = signal(0.12);
  /** Whether there is a mask to brush at all: without one, the whole picture changes. */
  readonly hasMask = signal(true);
  /** The picture at the model's size, as the engine reads it. */
  readonly fitted: ReadonlySignal<FittedImage | undefined>;
  private readonly canvas: ReadonlySignal<OffscreenCanvas | undefined>;

  constructor(size: Size) {
    super(size, { source: undefined, strokes: [] });
    const opened = computed(() => this.state.source);
    this.fitted = computed(
      () => opened.value && fitImage(opened.value, this.sizeSignal.value.height, this.sizeSignal.value.width, SUBJECT),
    );
    this.canvas = computed(() => this.fitted.value && toCanvas(this.fitted.value.image));
  }

  /** A change of size clears the mask. */
  setSize(size: Size): void {
    const before = this.sizeSignal.peek();
    if (size.width === before.width && size.height === before.height) return;
    this.sizeSignal.value = size;
    this.history.reset({ ...this.history.peek(), strokes: [] });
  }

  /** Open a picture, without a mask. Throws UserError if it is too small. */
  open(source: Image): void {
    const { width, height } = this.sizeSignal.peek();
    fitImage(source, height, width, SUBJECT); // a picture that cannot be used is told at once
    this.keys.lift();
    this.history.change({ source, strokes: [] });
  }

  /** The picture as it was opened. */
  get source(): Image | undefined {
    return this.state.source;
  }

  /** The picture at the model's size. */
  get image(): Image | undefined {
    return this.fitted.value?.image;
  }

  /** The changes that made the picture fit. */
  get notices(): readonly Notice[] {
    return this.fitted.value?.notices ?? [];
  }

  /** Whether something was brushed over. */
  get isBrushed(): boolean {
    return this.state.strokes.some(({ erases }) => !erases);
  }

  /** The mask at the model's size, white where the model repaints; undefined if it is empty. */
  maskImage(): Image | undefined {
    if (!this.isBrushed) return undefined;
    const mask = blackImage(this.size.width, this.size.height);
    for (const stroke of this.state.strokes) drawStroke(mask, stroke);
    return mask.data.some((value, i) => i % 4 !== 3 && value >= MASK_THRESHOLD) ? mask : undefined;
  }

  get cursor(): Point | undefined {
    return this.hasMask.value && this.image !== undefined ? this.keys.place.value : undefined;
  }

  clearMask(): void {
    this.history.change({ ...this.history.peek(), strokes: [] });
  }

  /** Mask the whole picture. */
  maskAll(): void {
    const { width, height } = this.sizeSignal.peek();
    const stroke = { points: [{ x: width / 2, y: height / 2 }], width: 2 * (width + height), erases: false };
    this.history.change({ ...this.history.peek(), strokes: [stroke] });
  }

  pressKey(key: string, isFast: boolean): boolean {
    if (!this.hasMask.peek() || this.history.peek().source === undefined) return false;
    return this.keys.press(key, isFast, this.sizeSignal.peek(), (from) => this.dragFrom(from));
  }

  paint(context: CanvasRenderingContext2D): void {
    const { width, height } = this.size;
    const picture = this.canvas.value;
    if (picture === undefined) {
      context.clearRect(0, 0, width, height);
      return;
    }
    context.drawImage(picture, 0, 0, width, height);
    if (!this.hasMask.value) return;
    const scale = context.canvas.width / width; // the mask is drawn apart, at the same resolution
    const mask = new OffscreenCanvas(context.canvas.width, context.canvas.height);
    const brush = mask.getContext("2d") as OffscreenCanvasRenderingContext2D;
    brush.scale(scale, scale);
    for (const stroke of this.state.strokes) {
      brush.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
      paintStroke(brush, stroke, MASK_COLOR);
    }
    context.globalAlpha = MASK_OPACITY;
    context.drawImage(mask, 0, 0, width, height);
    context.globalAlpha = 1;
  }

  private get state(): State {
    return this.history.present;
  }

  protected dragFrom(from: Touch): Drag {
    if (!this.hasMask.peek() || this.history.peek().source === undefined) return { move: () => {}, cancel: () => {} };
    const { width } = this.sizeSignal.peek();
    const ink = { width: this.brushWidth.peek() * width, erases: this.erases.peek() };
    const paper = this.paper((before, stroke) => ({ ...before, strokes: [...before.strokes, stroke] }));
    return startStroke(paper, ink, from);
  }
}

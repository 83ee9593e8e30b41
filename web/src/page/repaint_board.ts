/** The canvas on which the visitor brushes over what is to be repainted of a picture; for inpainting models. */

import { type Image, MASK_THRESHOLD } from "../worker";
import { coverSize, paintImage, paintStroke, shrink } from "./canvas";
import { type Drag, listenToDrags } from "./drag";
import { SPARE } from "./opened_picture";
import { drawShape, type Point, SPACING, type Stroke } from "./outline";

/** How the mask looks over the picture: a colour that few photos have. */
const MASK_COLOR = "#ff2d95";
const MASK_OPACITY = 0.6;
/** Changes that can be undone. */
const HISTORY = 50;

interface State {
  readonly picture: Image | undefined;
  readonly strokes: readonly Stroke[];
}

export class RepaintBoard {
  /** The brush rubs out instead. */
  erases = false;
  /** Of the board's width. */
  brushWidth = 0.12;
  /** Called whenever another picture or mask is on the board. */
  onChange: () => void = () => {};
  private state: State = { picture: undefined, strokes: [] };
  /** What was there before, the last one last. */
  private earlier: State[] = [];
  /** The picture at the model's size, as the engine will cut it. */
  private shown: { picture: Image; cut: Image } | undefined;
  private width: number;
  private height: number;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.width = canvas.width;
    this.height = canvas.height;
    listenToDrags(canvas, (from) => this.startStroke(from));
    this.present(this.state);
  }

  /** Pixels of the model's pictures; with another size, nothing is masked any more. */
  setSize(width: number, height: number): void {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.earlier = [];
    this.shown = undefined;
    this.present({ picture: this.state.picture, strokes: [] });
  }

  /** Put a picture on the board, with nothing masked. */
  open(picture: Image): void {
    this.change({ picture: shrink(picture, SPARE * this.width, SPARE * this.height), strokes: [] });
  }

  /** What is to be repainted in part, if there is a picture. */
  get image(): Image | undefined {
    return this.state.picture;
  }

  /** White where the picture is to be repainted, of the model's size; undefined where that is nowhere. */
  maskImage(): Image | undefined {
    const { strokes } = this.state;
    if (strokes.every(({ erases }) => erases)) return undefined;
    const mask = drawShape({ kind: "strokes", strokes }, this.width, this.height);
    return mask.data.some((value, i) => i % 4 !== 3 && value >= MASK_THRESHOLD) ? mask : undefined;
  }

  get canUndo(): boolean {
    return this.earlier.length > 0;
  }

  /** Put back what was there before the last change, if there was one. */
  undo(): void {
    const before = this.earlier.pop();
    if (before !== undefined) this.present(before);
  }

  clearMask(): void {
    this.change({ ...this.state, strokes: [] });
  }

  /** Mask all of the picture. */
  maskAll(): void {
    const middle = { x: this.width / 2, y: this.height / 2 };
    const stroke = { points: [middle], width: 2 * (this.width + this.height), erases: false };
    this.change({ ...this.state, strokes: [stroke] });
  }

  private startStroke(from: Point): Drag {
    if (this.state.picture === undefined) return { move: () => {}, cancel: () => {} };
    const points = [this.pixelAt(from)];
    const stroke = { points, width: this.brushWidth * this.width, erases: this.erases };
    const spacing = Math.max(SPACING, stroke.width / 16);
    const drawn = { ...this.state, strokes: [...this.state.strokes, stroke] };
    this.change(drawn); // a click is a dot
    /** Another picture may have come meanwhile, or the stroke may have been undone. */
    const isThere = () => this.state === drawn;
    return {
      move: (to) => {
        const [point, last] = [this.pixelAt(to), points[points.length - 1]];
        if (!isThere() || Math.hypot(point.x - last.x, point.y - last.y) < spacing) return;
        points.push(point);
        this.present(drawn);
      },
      cancel: () => isThere() && this.undo(),
    };
  }

  private pixelAt({ x, y }: Point): Point {
    return { x: x * this.width, y: y * this.height };
  }

  private change(state: State): void {
    this.earlier = [...this.earlier, this.state].slice(-HISTORY);
    this.present(state);
  }

  private present(state: State): void {
    this.state = state;
    this.canvas.setAttribute("aria-label", this.describe());
    this.paint();
    this.onChange();
  }

  private paint(): void {
    const { picture, strokes } = this.state;
    if (picture === undefined) {
      this.canvas.getContext("2d")?.reset();
      return;
    }
    if (this.shown?.picture !== picture) this.shown = { picture, cut: coverSize(picture, this.width, this.height) };
    paintImage(this.canvas, this.shown.cut);
    const context = this.canvas.getContext("2d") as CanvasRenderingContext2D;
    const mask = new OffscreenCanvas(this.width, this.height);
    const brush = mask.getContext("2d") as OffscreenCanvasRenderingContext2D;
    for (const stroke of strokes) {
      brush.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
      paintStroke(brush, stroke, MASK_COLOR);
    }
    context.globalAlpha = MASK_OPACITY;
    context.drawImage(mask, 0, 0);
    context.globalAlpha = 1;
  }

  private describe(): string {
    const { picture, strokes } = this.state;
    if (picture === undefined) return "Picture to repaint: none";
    const brushed = strokes.some(({ erases }) => !erases) ? "brushed over" : "nothing brushed over";
    return `Picture to repaint: ${picture.width} by ${picture.height}, ${brushed}`;
  }
}

/** The canvas on which the visitor marks the part of a photo that an inpainting model repaints. */

import { type FittedImage, fitImage, type Image, MASK_THRESHOLD } from "../worker";
import { paintImage, paintStroke } from "./canvas";
import { type Drag, listenToDrags } from "./drag";
import { History } from "./history";
import { drawShape, type Point, SPACING, type Stroke } from "./outline";

/** The mask's colour over the picture. Few photos contain it. */
const MASK_COLOR = "#ff2d95";
const MASK_OPACITY = 0.6;
/** The picture's name in errors and notices. */
const SUBJECT = "photo";

interface State {
  readonly picture: OpenedPhoto | undefined;
  readonly strokes: readonly Stroke[];
}

interface OpenedPhoto {
  readonly source: Image;
  /** The picture at the model's size, as the engine reads it. */
  readonly fitted: FittedImage;
}

export class RepaintBoard {
  /** Whether the brush removes the mask instead of adding to it. */
  erases = false;
  /** The brush's width as a fraction of the board's width. */
  brushWidth = 0.12;
  /** Called after every change of the picture or the mask. */
  onChange: () => void = () => {};
  private readonly history = new History<State>({ picture: undefined, strokes: [] });
  private width: number;
  private height: number;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.width = canvas.width;
    this.height = canvas.height;
    listenToDrags(canvas, (from) => this.startStroke(from));
    this.present();
  }

  /** Set the size of the model's pictures in pixels. A change of size clears the mask. */
  setSize(width: number, height: number): void {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    const { picture } = this.state;
    this.history.reset({ picture: picture && this.fit(picture.source), strokes: [] });
    this.present();
  }

  /** Put a picture on the board, without a mask. Throws UserError if it is too small. */
  open(picture: Image): void {
    this.change({ picture: this.fit(picture), strokes: [] });
  }

  /** The picture on the board, as it was opened. */
  get source(): Image | undefined {
    return this.state.picture?.source;
  }

  /** The picture at the model's size. */
  get image(): Image | undefined {
    return this.state.picture?.fitted.image;
  }

  /** The changes that made the picture fit, one sentence each. */
  get notices(): readonly string[] {
    return this.state.picture?.fitted.notices ?? [];
  }

  /** The mask at the model's size, white where the model repaints; undefined if it is empty. */
  maskImage(): Image | undefined {
    const { strokes } = this.state;
    if (strokes.every(({ erases }) => erases)) return undefined;
    const mask = drawShape({ kind: "strokes", strokes }, this.width, this.height);
    return mask.data.some((value, i) => i % 4 !== 3 && value >= MASK_THRESHOLD) ? mask : undefined;
  }

  get canUndo(): boolean {
    return this.history.canUndo;
  }

  /** Undo the last change, if there is one. */
  undo(): void {
    if (this.history.undo()) this.present();
  }

  clearMask(): void {
    this.change({ ...this.state, strokes: [] });
  }

  /** Mask the whole picture. */
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
    this.change(drawn); // a click draws a dot
    /** Return false if another picture was opened since, or the stroke was undone. */
    const isThere = () => this.state === drawn;
    return {
      move: (to) => {
        const [point, last] = [this.pixelAt(to), points[points.length - 1]];
        if (!isThere() || Math.hypot(point.x - last.x, point.y - last.y) < spacing) return;
        points.push(point);
        this.present();
      },
      cancel: () => isThere() && this.undo(),
    };
  }

  private pixelAt({ x, y }: Point): Point {
    return { x: x * this.width, y: y * this.height };
  }

  private change(state: State): void {
    this.history.change(state);
    this.present();
  }

  private get state(): State {
    return this.history.present;
  }

  private fit(source: Image): OpenedPhoto {
    return { source, fitted: fitImage(source, this.height, this.width, SUBJECT) };
  }

  private present(): void {
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
    paintImage(this.canvas, picture.fitted.image);
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
    return `Picture to repaint: ${picture.source.width} by ${picture.source.height}, ${brushed}`;
  }
}

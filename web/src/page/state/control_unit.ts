/** A control unit: a ControlNet of the bundle, its picture, and how it counts. */

import { type Signal, signal } from "@preact/signals";
import type { Manifest, Settings } from "../../worker";
import { annotatorsFor } from "../annotators/annotation";
import { classOf, type PaintClass } from "../classes/ade20k";
import { ControlDrawing, TOOLS, type Tool } from "../drawing/control_drawing";
import { EMPTY, ringShape } from "../drawing/control_shape";
import { type Color, LINE_WIDTH, type Size } from "../drawing/marks";
import { RINGS } from "../samples/rings";
import { STRENGTHS, type StrengthName, strengthName, weightOf } from "./strength";

/** The model that comes with the project. It knows one ring, in two colours. */
export const BUNDLED_MODEL = "circles";

export type ControlMode = Exclude<Settings["controlMode"], readonly unknown[]>;
export const CONTROL_MODES: readonly ControlMode[] = ["balanced", "prompt", "control"];

/** Kinds whose control images are lines, white on black; "" is a kind that is not known. */
const FOR_LINES: ReadonlySet<string> = new Set([
  "",
  "canny",
  "scribble",
  "softedge",
  "lineart",
  "lineart_anime",
  "mlsd",
]);

/** What the brush paints on a grid of colours until another one is chosen. */
const FIRST_COLOR: Color = [230, 60, 50];

export type ControlNetEntry = Manifest["controlnets"][number];

export class ControlUnit {
  readonly enabled = signal(true);
  /** The name of the ControlNet; empty before the bundle is known. */
  readonly controlnet = signal("");
  /** What its control images show, in ControlNet 1.1's words; empty if its name does not tell. */
  readonly kind = signal("");
  readonly weight: Signal<number | undefined> = signal(undefined);
  /** The conditioning scale that the model recommends, which presets are shares of; undefined before one is loaded. */
  readonly recommendedWeight: Signal<number | undefined> = signal(undefined);
  readonly start: Signal<number | undefined> = signal(0);
  readonly end: Signal<number | undefined> = signal(1);
  readonly mode: Signal<ControlMode> = signal("balanced");
  readonly drawing: ControlDrawing;
  /** Of a map of classes: what the brush paints. */
  readonly paintClass: Signal<PaintClass | undefined> = signal(undefined);

  constructor(
    /** Tells units apart; the first is 1. */
    readonly id: number,
    size: Size,
  ) {
    this.drawing = new ControlDrawing(size, ...RINGS[0]);
  }

  /** Use a ControlNet of the bundle. */
  use({ name, kind }: ControlNetEntry): void {
    this.controlnet.value = name;
    if (kind === this.kind.peek()) return;
    this.kind.value = kind;
    this.paint(kind === "seg" ? classOf("sky") : undefined);
    if (kind === "color") this.drawing.color.value = FIRST_COLOR;
    if (!FOR_LINES.has(kind)) this.drawing.beginWith(EMPTY); // the ring is for a model that follows lines
    this.drawing.setTool(this.tools[0]);
    this.drawing.useAnnotators(this.annotators);
    if (!this.drawing.isOneRing.peek()) this.drawFreely(); // lines and colours have brushes of different widths
  }

  /** Let the board speak of any model: it draws with a brush, and begins empty. */
  drawFreely(): void {
    const { drawing } = this;
    drawing.isOneRing.value = false;
    const share = this.kind.peek() === "color" ? 1 / 8 : 1 / 128;
    drawing.lineWidth.value = Math.max(LINE_WIDTH, Math.round(drawing.size.width * share));
  }

  /** The tools that make sense for what its control images show; the first is the one to begin with. */
  get tools(): readonly Tool[] {
    if (this.kind.value === "seg") return ["area", "pencil", "line", "eraser"];
    if (this.kind.value === "color") return ["pencil", "line", "area", "eraser"];
    if (this.kind.value === "scribble") return ["pencil", "line", "ring", "eraser"];
    return TOOLS.filter((tool) => tool !== "area");
  }

  /** Paint with the colour of a class; undefined: with white. */
  paint(paintClass: PaintClass | undefined): void {
    this.paintClass.value = paintClass;
    this.drawing.color.value = paintClass?.color;
  }

  /** Let the board speak of the bundled model: one ring, also in the place of another model's example. */
  drawOneRing(): void {
    const { drawing } = this;
    drawing.isOneRing.value = true;
    if (drawing.shape.kind === "strokes") drawing.beginWith(ringShape(drawing.size, ...RINGS[0]));
  }

  /** Take over the conditioning scale that a model recommends: presets follow it, the visitor's own weight stays. */
  recommend(scale: number): void {
    const [weight, start, end] = [this.weight.peek(), this.start.peek(), this.end.peek()];
    const before = this.recommendedWeight.peek();
    const preset = before === undefined ? undefined : strengthName({ weight, start, end }, before);
    this.recommendedWeight.value = scale;
    if (preset !== undefined) this.weight.value = weightOf(preset, scale);
    this.weight.value ??= scale;
  }

  setStrength(name: StrengthName): void {
    this.weight.value = weightOf(name, this.recommendedWeight.peek() ?? 1);
    this.start.value = 0;
    this.end.value = STRENGTHS[name].end;
  }

  /** The annotators for its ControlNet; the first is the one for a photo. */
  get annotators() {
    return annotatorsFor(this.kind.value);
  }
}

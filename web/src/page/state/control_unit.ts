/** A control unit: a ControlNet of the bundle, its picture, and how it counts. */

import { type Signal, signal } from "@preact/signals";
import type { Manifest, Settings } from "../../worker";
import { annotatorsFor } from "../annotators/annotation";
import { ControlDrawing } from "../drawing/control_drawing";
import { LINE_WIDTH, type Size } from "../drawing/marks";
import { SAMPLES } from "../drawing/samples";
import { STRENGTHS, type StrengthName } from "./strength";

/** The model that comes with the project. It knows one ring, in two colours. */
export const BUNDLED_MODEL = "circles";

export type ControlMode = Exclude<Settings["controlMode"], readonly unknown[]>;
export const CONTROL_MODES: readonly ControlMode[] = ["balanced", "prompt", "control"];

export type ControlNetEntry = Manifest["controlnets"][number];

export class ControlUnit {
  readonly enabled = signal(true);
  /** The name of the ControlNet; empty before the bundle is known. */
  readonly controlnet = signal("");
  /** What its control images show, in ControlNet 1.1's words; empty if its name does not tell. */
  readonly kind = signal("");
  readonly weight: Signal<number | undefined> = signal(undefined);
  readonly start: Signal<number | undefined> = signal(0);
  readonly end: Signal<number | undefined> = signal(1);
  readonly mode: Signal<ControlMode> = signal("balanced");
  readonly drawing: ControlDrawing;

  constructor(
    /** Tells units apart; the first is 1. */
    readonly id: number,
    size: Size,
  ) {
    this.drawing = new ControlDrawing(size, ...SAMPLES[0]);
  }

  /** Use a ControlNet of the bundle. */
  use({ name, kind }: ControlNetEntry): void {
    this.controlnet.value = name;
    this.kind.value = kind;
  }

  /** Let the board speak of any model: it draws with a brush, and begins empty. */
  drawFreely(): void {
    const { drawing } = this;
    drawing.isOneRing.value = false;
    drawing.lineWidth.value = Math.max(LINE_WIDTH, Math.round(drawing.size.width / 128));
  }

  setStrength(name: StrengthName): void {
    const { weight, end } = STRENGTHS[name];
    this.weight.value = weight;
    this.start.value = 0;
    this.end.value = end;
  }

  /** The annotators for its ControlNet; the first is the one for a photo. */
  get annotators() {
    return annotatorsFor(this.kind.value);
  }
}

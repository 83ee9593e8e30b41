/** What every board to draw on has: a size, a way back from each change, and a brush that pointers and keys move. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Drawable } from "./board";
import { KeyBrush, type Paper } from "./brush";
import type { Drag, Touch } from "./drag";
import { History } from "./history";
import type { Point, Size, Stroke } from "./marks";

/** A board whose content is a `State`, which is replaced with every change. */
export abstract class BrushBoard<State> implements Drawable {
  protected readonly history: History<State>;
  protected readonly keys = new KeyBrush();
  protected readonly sizeSignal: Signal<Size>;

  constructor(size: Size, content: State) {
    this.sizeSignal = signal(size);
    this.history = new History(content);
  }

  /** In pixels of the picture that the board makes. */
  get size(): Size {
    return this.sizeSignal.value;
  }

  /** Whether the keys' brush is down. */
  get isDrawingByKeys(): boolean {
    return this.keys.isDown.value;
  }

  get canUndo(): boolean {
    return this.history.canUndo;
  }

  get canRedo(): boolean {
    return this.history.canRedo;
  }

  /** Changes with every change of the content. */
  get changes(): ReadonlySignal<unknown> {
    return this.history.changes;
  }

  undo(): void {
    this.keys.lift();
    this.history.undo();
  }

  redo(): void {
    this.keys.lift();
    this.history.redo();
  }

  startDrag(from: Touch): Drag {
    this.keys.lift();
    return this.dragFrom(from);
  }

  abstract get cursor(): Point | undefined;
  abstract pressKey(key: string, isFast: boolean): boolean;
  abstract paint(context: CanvasRenderingContext2D): void;
  protected abstract dragFrom(from: Touch): Drag;

  /** Takes strokes, each of which is added to what is on the board now. */
  protected paper(add: (before: State, stroke: Stroke) => State): Paper {
    const before = this.history.peek();
    return {
      size: this.sizeSignal.peek(),
      show: (stroke, gesture) => this.history.change(add(before, stroke), gesture),
      takeBack: (gesture) => this.history.takeBack(gesture),
      isOf: (gesture) => this.history.isOf(gesture),
    };
  }
}

/** The history for undo and redo: the present state, those before it, and those that were undone. */

import { type ReadonlySignal, signal } from "@preact/signals";

/** The number of states to go back to. Pictures need megabytes, so old states are dropped. */
const MOST = 50;

interface Timeline<T> {
  readonly earlier: readonly T[];
  readonly present: T;
  readonly undone: readonly T[];
}

export class History<T> {
  private readonly timeline;
  /** The gesture of the last change. */
  private gesture: unknown;

  constructor(state: T) {
    this.timeline = signal<Timeline<T>>({ earlier: [], present: state, undone: [] });
  }

  get present(): T {
    return this.timeline.value.present;
  }

  /** The same without a subscription to the changes. */
  peek(): T {
    return this.timeline.peek().present;
  }

  get canUndo(): boolean {
    return this.timeline.value.earlier.length > 0;
  }

  get canRedo(): boolean {
    return this.timeline.value.undone.length > 0;
  }

  /** The signal that changes with every state. */
  get changes(): ReadonlySignal<unknown> {
    return this.timeline;
  }

  /** Make `state` the present one. Changes of one `gesture`, if it is not undefined, are undone together. */
  change(state: T, gesture?: unknown): void {
    const { earlier, present } = this.timeline.peek();
    const isNew = gesture === undefined || gesture !== this.gesture;
    this.gesture = gesture;
    const before = isNew ? [...earlier, present].slice(-MOST) : earlier;
    this.timeline.value = { earlier: before, present: state, undone: [] };
  }

  /** Return whether the last change was made by that gesture, and was not undone. */
  isOf(gesture: unknown): boolean {
    return this.gesture === gesture;
  }

  /** Go back to the state before the last change; returns false if there is none. */
  undo(): boolean {
    this.gesture = undefined;
    const { earlier, present, undone } = this.timeline.peek();
    if (earlier.length === 0) return false;
    this.timeline.value = {
      earlier: earlier.slice(0, -1),
      present: earlier[earlier.length - 1],
      undone: [...undone, present],
    };
    return true;
  }

  /** Take back the last undo; returns false if there is none, or something was changed since. */
  redo(): boolean {
    this.gesture = undefined;
    const { earlier, present, undone } = this.timeline.peek();
    if (undone.length === 0) return false;
    this.timeline.value = {
      earlier: [...earlier, present],
      present: undone[undone.length - 1],
      undone: undone.slice(0, -1),
    };
    return true;
  }

  /** Go back by the change of a gesture that came to nothing: it is not there to redo. */
  takeBack(gesture: unknown): void {
    if (!this.isOf(gesture) || !this.undo()) return;
    this.timeline.value = { ...this.timeline.peek(), undone: [] };
  }

  /** Replace every state, for a board of another size. */
  map(change: (state: T) => T): void {
    const { earlier, present, undone } = this.timeline.peek();
    this.timeline.value = { earlier: earlier.map(change), present: change(present), undone: undone.map(change) };
  }

  /** Make `state` the only one. */
  reset(state: T): void {
    this.gesture = undefined;
    this.timeline.value = { earlier: [], present: state, undone: [] };
  }
}

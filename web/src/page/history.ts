/** The history for undo: the present state and the ones before it. */

/** The number of states to go back to. Pictures need megabytes, so old states are dropped. */
const MOST = 50;

export class History<T> {
  private earlier: T[] = [];
  /** The gesture of the last change. */
  private gesture: unknown;

  constructor(private state: T) {}

  get present(): T {
    return this.state;
  }

  get canUndo(): boolean {
    return this.earlier.length > 0;
  }

  /** Make `state` the present one. Changes of one `gesture`, if it is not undefined, are undone together. */
  change(state: T, gesture?: unknown): void {
    if (gesture === undefined || gesture !== this.gesture) this.earlier = [...this.earlier, this.state].slice(-MOST);
    this.gesture = gesture;
    this.state = state;
  }

  /** Replace the present state without a change to undo. */
  amend(state: T): void {
    this.state = state;
  }

  /** Return whether the last change was made by that gesture, and was not undone. */
  isOf(gesture: unknown): boolean {
    return this.gesture === gesture;
  }

  /** Go back to the state before the last change; returns false if there is none. */
  undo(): boolean {
    this.gesture = undefined;
    if (!this.canUndo) return false;
    this.state = this.earlier.pop() as T;
    return true;
  }

  /** Replace every state, for a board of another size. */
  map(change: (state: T) => T): void {
    this.earlier = this.earlier.map(change);
    this.state = change(this.state);
  }

  /** Make `state` the only one. */
  reset(state: T): void {
    this.earlier = [];
    this.gesture = undefined;
    this.state = state;
  }
}

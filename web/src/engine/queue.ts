/** One call runs, the others wait for their turn in the order in which they came. */

/** What a call that waits wants to know, and the signal that ends its waiting. */
export interface WaitOptions {
  readonly signal?: AbortSignal;
  /** Called with the number of calls before this one, each time that it changes; with 0 when it begins. */
  readonly onQueue?: (ahead: number) => void;
}

interface Waiting {
  readonly begin: () => void;
  readonly onQueue: (ahead: number) => void;
}

/** Runs calls one after the other. */
export class Queue {
  private running: Promise<unknown> | undefined;
  private readonly line: Waiting[] = [];

  /** The number of calls that wait for their turn. */
  get waiting(): number {
    return this.line.length;
  }

  /** Run `action` when the calls before it have ended, well or not. An abort before its turn takes it out of the line at once. */
  async run<T>(action: () => Promise<T>, { signal, onQueue = () => {} }: WaitOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    if (this.running !== undefined) await this.turn(onQueue, signal);
    try {
      onQueue(0);
      const call = action();
      this.running = call;
      return await call;
    } finally {
      this.running = undefined;
      this.next();
    }
  }

  /** Settles when nothing runs and nothing waits. */
  async idle(): Promise<void> {
    while (this.running !== undefined) await this.running.catch(() => {});
  }

  private turn(onQueue: (ahead: number) => void, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        begin: () => {
          signal?.removeEventListener("abort", leave);
          resolve();
        },
        onQueue,
      };
      const leave = () => {
        this.line.splice(this.line.indexOf(waiting), 1);
        this.tell();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.line.push(waiting);
      onQueue(this.line.length);
    });
  }

  private next(): void {
    const first = this.line.shift();
    if (first === undefined) return;
    // Until its action is there: a call that comes in between must not overtake it.
    this.running = Promise.resolve();
    first.begin();
    this.tell();
  }

  private tell(): void {
    for (const [i, { onQueue }] of this.line.entries()) onQueue(i + 1);
  }
}

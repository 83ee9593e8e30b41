/** Values on a device that are made again when their device has gone. */

import type { Context, FloatArray, OnDevice, Residuals } from "./components.ts";
import type { Engine } from "./engine.ts";

/** Who replaces an engine whose device has gone. */
interface EngineOwner {
  /** What is loaded now, or was last. */
  readonly loaded: { readonly engine: Engine };
  /** Run a call on the present engine, and if that breaks, on the next one. */
  survive<T>(call: (engine: Engine) => Promise<T>): Promise<T>;
}

/** A value on a device, and how it is made again on another one. */
export class Remembered implements Context, Residuals {
  timeIds?: FloatArray;
  private making: { readonly engine: Engine; readonly value: Promise<Context & Residuals> } | undefined;
  private isDisposed = false;

  /** `parts` are the values that it is made of. They may be disposed before it is. */
  constructor(
    private readonly owner: EngineOwner,
    private readonly parts: readonly OnDevice[],
    private readonly make: (engine: Engine) => Promise<Context & Residuals>,
    private held: { readonly engine: Engine; readonly value: Context & Residuals } | undefined,
  ) {}

  read(): Promise<FloatArray[]> {
    return this.owner.survive(async (engine) => (await this.on(engine)).read());
  }

  async on(engine: Engine): Promise<Context & Residuals> {
    if (this.held?.engine === engine) return this.held.value;
    if (this.making?.engine !== engine) {
      const value = this.make(engine).then((made) => {
        this.held = { engine, value: made };
        return made;
      });
      this.making = { engine, value };
    }
    return this.making.value;
  }

  dispose(): void {
    this.isDisposed = true;
    this.free();
    for (const part of this.parts) if ((part as Remembered).isDisposed) (part as Remembered).free(); // made again for this
  }

  /** What was on an engine that is gone went with it. */
  private free(): void {
    if (this.held?.engine === this.owner.loaded.engine) this.held.value.dispose();
    this.held = undefined;
    this.making = undefined;
  }
}

/** A context on an engine, with the time ids that the host keeps. */
export async function contextOn(engine: Engine, context: Context): Promise<Context> {
  return Object.assign(await on(engine, context), { timeIds: context.timeIds });
}

/** A value on an engine, made again there if it was on another one. */
export function on<T extends OnDevice>(engine: Engine, value: T): Promise<T> {
  return (value as unknown as Remembered).on(engine) as unknown as Promise<T>;
}

/**
 * The components on an engine that is replaced if its device goes away, in the middle of a picture too.
 *
 * The denoising loop keeps its sample on the host. All else that it needs was computed on the device from numbers of the host, and
 * is computed again, from the same numbers, when the next call needs it. So a loss costs the call that it meets and the loading
 * of the model, and the picture is the same as without it.
 */

import type { ChosenDevice } from "./choose_device.ts";
import type {
  Components,
  Context,
  ControlEmbedding,
  DeepFeature,
  FloatArray,
  OnDevice,
  Residuals,
} from "./components.ts";
import type { Engine } from "./engine.ts";
import { codeOf } from "./errors.ts";
import type { ControlNetEntry } from "./manifest.ts";
import type { Memory, MemoryChoice } from "./memory.ts";
import { type Notice, type NoticeListener, noticeOf } from "./notices.ts";
import { ADAPTER_DELAYS_MS, LOSSES_MS } from "./patience.ts";
import type { LoadOptions } from "./progress.ts";
import { contextOn, on, Remembered } from "./remembered.ts";
import type { Size } from "./size.ts";

/** How an engine is to be loaded: what a failure may change. */
export interface LoadPlan {
  readonly memory: MemoryChoice;
  /** The only compute dtype that is wanted. */
  readonly dtype?: string;
}

/** An engine and what it was loaded for. */
export interface Loaded {
  readonly engine: Engine;
  readonly chosen: ChosenDevice;
  readonly memory: Memory;
}

/** What the present call wants to hear of a loss, and the signal that ends its loading. */
export interface LossListener extends LoadOptions {
  readonly onNotice?: NoticeListener;
}

export class SurvivingEngine implements Components {
  private present: Loaded | undefined;
  private replacing: Promise<void> | undefined;
  private isUnloaded = false;
  /** The present engine cannot be used: it was to be replaced, and no other could be loaded. */
  private isGone = false;
  /** When devices were lost, in milliseconds. */
  private losses: number[] = [];
  /** Further components that pictures have needed so far. */
  private readonly required = new Set<string>();
  /** The work of the engines before the present one. */
  private past = { dispatches: 0, peakGpuMebibytes: 0 };
  /** Hears of the losses from now on. */
  listener: LossListener;

  private constructor(
    private readonly loadOnce: (plan: LoadPlan, options: LoadOptions) => Promise<Loaded>,
    private plan: LoadPlan,
    listener: LossListener,
  ) {
    this.listener = listener;
  }

  /** Load the first engine. A device that is lost meanwhile, and a GPU that is full, have a second try. */
  static async load(
    loadOnce: (plan: LoadPlan, options: LoadOptions) => Promise<Loaded>,
    memory: MemoryChoice,
    listener: LossListener = {},
  ): Promise<SurvivingEngine> {
    const surviving = new SurvivingEngine(loadOnce, { memory }, listener);
    surviving.present = await surviving.reload();
    return surviving;
  }

  /** What is loaded now, or was last. */
  get loaded(): Loaded {
    return this.present as Loaded;
  }

  /**
   * Load the library of another compute dtype from now on.
   *
   * Returns false, and changes nothing, if it is in use already.
   */
  async useDtype(dtype: string): Promise<boolean> {
    if (this.loaded.chosen.opened.library.dtype === dtype) return false;
    this.plan = { ...this.plan, dtype };
    await this.replace(this.loaded.engine);
    return true;
  }

  stats() {
    const now = this.loaded.engine.stats();
    return {
      ...now,
      dispatches: this.past.dispatches + now.dispatches,
      peakGpuMebibytes: Math.max(this.past.peakGpuMebibytes, now.peakGpuMebibytes),
    };
  }

  unload(): void {
    this.isUnloaded = true;
    this.loaded.engine.unload();
  }

  async require(components: readonly string[], options: LoadOptions = {}): Promise<void> {
    await this.survive((engine) => engine.require(components, options));
    for (const name of components) this.required.add(name);
  }

  textEncoder(tokenIds: Int32Array<ArrayBuffer>, clipSkip?: number): Promise<Context> {
    return this.remember([], (engine) => engine.textEncoder(tokenIds, clipSkip));
  }

  textEncoder2(
    tokenIds: Int32Array<ArrayBuffer>,
    endPosition: number,
    first: Context,
    clipSkip?: number,
  ): Promise<Context> {
    return this.remember([first], async (engine) =>
      engine.textEncoder2(tokenIds, endPosition, await on(engine, first), clipSkip),
    );
  }

  context(values: FloatArray, textEmbeds?: FloatArray, width?: number): Promise<Context> {
    return this.remember([], (engine) => engine.context(values, textEmbeds, width));
  }

  firstWidth(): number {
    return this.loaded.engine.firstWidth();
  }

  async controlEmbedding(
    controlImage: FloatArray,
    controlnet: ControlNetEntry,
    size?: Size,
  ): Promise<ControlEmbedding> {
    const value = await this.remember([], (engine) => engine.controlEmbedding(controlImage, controlnet, size));
    return Object.assign(value, { controlnet });
  }

  controlnet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    control: ControlEmbedding,
    conditioningScales: readonly number[],
  ): Promise<Residuals> {
    return this.remember([context, control], async (engine) =>
      engine.controlnet(
        sample,
        timestep,
        await contextOn(engine, context),
        await on(engine, control),
        conditioningScales,
      ),
    );
  }

  residualSum(one: Residuals, other: Residuals): Promise<Residuals> {
    return this.remember([one, other], async (engine) =>
      engine.residualSum(await on(engine, one), await on(engine, other)),
    );
  }

  zeroResiduals(size?: Size): Promise<Residuals> {
    return this.remember([], (engine) => engine.zeroResiduals(size));
  }

  unet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<FloatArray> {
    return this.survive(async (engine) =>
      engine.unet(sample, timestep, await contextOn(engine, context), await on(engine, residuals), guidanceScale),
    );
  }

  async unetAndFeature(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<{ output: FloatArray; feature: DeepFeature | undefined }> {
    const call = async (engine: Engine) =>
      engine.unetAndFeature(
        sample,
        timestep,
        await contextOn(engine, context),
        await on(engine, residuals),
        guidanceScale,
      );
    const { output, feature, engine } = await this.survive(async (used) => ({ ...(await call(used)), engine: used }));
    if (feature === undefined) return { output, feature };
    const again = async (other: Engine) => (await call(other)).feature as DeepFeature & Residuals;
    const held = { engine, value: feature as DeepFeature & Residuals };
    return { output, feature: new Remembered(this, [context, residuals], again, held) };
  }

  unetShallow(
    sample: FloatArray,
    timestep: number,
    context: Context,
    feature: DeepFeature,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<FloatArray> {
    return this.survive(async (engine) => {
      const [one, two, three] = [
        await contextOn(engine, context),
        await on(engine, feature),
        await on(engine, residuals),
      ];
      return engine.unetShallow(sample, timestep, one, two, three, guidanceScale);
    });
  }

  vaeDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    return this.survive((engine) => engine.vaeDecoder(latents, size));
  }

  previewDecoder(latents: FloatArray, size?: Size): Promise<FloatArray> {
    return this.survive((engine) => engine.previewDecoder(latents, size));
  }

  vaeEncoder(image: FloatArray, size?: Size): Promise<FloatArray> {
    return this.survive((engine) => engine.vaeEncoder(image, size));
  }

  /** Run a call on the present engine, and if that breaks, on the next one. */
  async survive<T>(call: (engine: Engine) => Promise<T>): Promise<T> {
    for (;;) {
      await this.replacing;
      if (this.isGone) await this.replace(this.loaded.engine);
      const { engine } = this.loaded;
      try {
        return await call(engine);
      } catch (error) {
        if (this.isUnloaded || !["device-lost", "gpu-memory-full"].includes(codeOf(error))) throw error;
        await this.replace(engine, error);
      }
    }
  }

  /** Make a value on the device that can be made again. */
  private async remember<T extends Context & Residuals>(
    parts: readonly OnDevice[],
    make: (engine: Engine) => Promise<T>,
  ): Promise<Remembered> {
    const held = await this.survive(async (engine) => ({ engine, value: await make(engine) }));
    return new Remembered(this, parts, make, held);
  }

  /** Replace `broken`, once for all calls that it failed. */
  private async replace(broken: Engine, cause?: unknown): Promise<void> {
    if (this.loaded.engine !== broken) return;
    this.replacing ??= this.load(broken, cause).finally(() => {
      this.replacing = undefined;
    });
    await this.replacing;
  }

  private async load(broken: Engine, cause?: unknown): Promise<void> {
    const { dispatches, peakGpuMebibytes } = this.stats();
    broken.unload();
    this.isGone = true;
    const next = await this.reload(cause);
    if (this.isUnloaded) next.engine.unload();
    this.past = { dispatches, peakGpuMebibytes };
    this.present = next;
    this.isGone = false;
  }

  private async reload(cause?: unknown): Promise<Loaded> {
    let withoutAdapter = 0;
    for (let error = cause; ; ) {
      const isGone =
        codeOf(error) === "no-adapter" && this.losses.length > 0 && withoutAdapter < ADAPTER_DELAYS_MS.length;
      if (isGone) {
        await new Promise((resolve) => setTimeout(resolve, ADAPTER_DELAYS_MS[withoutAdapter++])); // the browser restarts it
      } else if (error !== undefined) this.planAfter(error);
      try {
        const loaded = await this.loadOnce(this.plan, this.listener);
        if (this.required.size) await loaded.engine.require([...this.required], this.listener);
        return loaded;
      } catch (failure) {
        error = failure;
      }
    }
  }

  /** Plan the next engine after a failure, and tell it. Throws the error if another try would not help. */
  private planAfter(error: unknown): void {
    const tell = (notice: Notice) => this.listener.onNotice?.(notice.text, notice);
    const code = codeOf(error);
    if (code === "gpu-memory-full" && this.plan.memory === "auto") {
      this.plan = { ...this.plan, memory: "reduced" };
      tell(noticeOf("memory-reduced", {}));
      return;
    }
    if (code !== "device-lost") throw error;
    const now = performance.now();
    this.losses = [...this.losses.filter((time) => now - time < LOSSES_MS), now];
    if (this.losses.length > 1) {
      this.losses = []; // the next call, which somebody asks for, tries again
      throw error;
    }
    tell(noticeOf("gpu-lost", {}));
  }
}

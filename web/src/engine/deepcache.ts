/**
 * DeepCache: most steps compute only the UNet's outermost layers, on features of an earlier step (arXiv 2312.00858).
 *
 * Of every `interval` steps, the first is whole: ControlNets and the UNet run, and the residuals and the UNet's deep
 * features stay on the device. The steps after it are shallow: no ControlNet runs, and the shallow UNet reads what the
 * whole step left, residuals included. A shallow step without residuals would be further from the whole picture.
 * Twin: mlc_controlnet/runtime/deepcache.py.
 */

import type { Components, Context, DeepFeature, FloatArray, Residuals } from "./components.ts";
import type { Control } from "./controls.ts";

/** What a whole step computed, for each context in order. */
export interface WholeStep {
  readonly residuals: readonly Residuals[];
  /** Those of the residuals that this step made and that are not needed elsewhere. */
  readonly made: readonly Residuals[];
  readonly features: readonly DeepFeature[];
}

/** What the last whole step left for the shallow ones. It owns that until the next whole step, or until it is disposed. */
export class DeepCache {
  private shallowSteps = 0;
  private controlnets = "";
  private kept: WholeStep | undefined;

  /** `interval`: the distance of whole steps, 1 or more; 1 makes every step whole. */
  constructor(private readonly interval: number) {}

  /** Return whether the next step is shallow. It is whole if other ControlNets take part than in the last one. */
  isShallow(active: readonly Control[]): boolean {
    return this.shallowSteps > 0 && names(active) === this.controlnets;
  }

  /** Keep what a whole step computed. */
  keep(active: readonly Control[], step: WholeStep): void {
    this.dispose();
    this.kept = step;
    this.shallowSteps = this.interval - 1;
    this.controlnets = names(active);
  }

  /** Take a shallow step: the UNet's output for each context, float32 [1, C, h, w], and the residuals that it read. */
  async predict(
    components: Components,
    sample: FloatArray,
    timestep: number,
    contexts: readonly Context[],
    guidanceScale: number,
  ): Promise<{ outputs: FloatArray[]; residuals: readonly Residuals[] }> {
    this.shallowSteps--;
    const { residuals, features } = this.kept as WholeStep;
    const outputs = contexts.map((context, i) =>
      components.unetShallow(sample, timestep, context, features[i], residuals[i], guidanceScale),
    );
    return { outputs: await Promise.all(outputs), residuals };
  }

  /** Free what was kept if no shallow step will read it. */
  endStep(): void {
    if (this.shallowSteps === 0) this.dispose();
  }

  /** Free the latest first: see the engine's `TensorsOnDevice`. */
  dispose(): void {
    const { made = [], features = [] } = this.kept ?? {};
    for (const value of [...made, ...features].reverse()) value.dispose();
    this.kept = undefined;
  }
}

function names(active: readonly Control[]): string {
  return active.map(({ unit }) => unit.controlnet.name).join("\n");
}

/**
 * A library's kernels as GPU pipelines, compiled in the order in which a picture uses them.
 *
 * No call waits for more than its own kernels: the first component runs while those of the last are compiled.
 */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { watchPipelines } from "./device.ts";
import type { Library, Manifest } from "./manifest.ts";
import { drawingComponents } from "./model_traits.ts";
import type { LoadOptions } from "./progress.ts";
import { inScope } from "./tensor.ts";
import { untilAborted } from "./wait.ts";

/** TVM's functions of a WebGPU module: what it compiles, by name. */
const KERNELS = "webgpu.get_fmap";

export class Pipelines {
  /** Hears how many kernels are there: at first whoever loads the library, then a call that waits. */
  onProgress: LoadOptions["onProgress"];
  /** When the kernels that are compiled together can be launched; by kernel. */
  private readonly compiled = new Map<string, Promise<void>>();
  /** Kernels that the manifest tells of no function: each function may need them. */
  private readonly unlisted: ReadonlySet<string>;
  private readonly kernelsOf: ReadonlyMap<string, readonly string[]>;

  private constructor(
    { kernels }: Library,
    private readonly all: readonly string[],
  ) {
    this.kernelsOf = new Map(kernels.map(({ function: name, kernels: launched }) => [name, launched]));
    const listed = new Set(kernels.flatMap(({ kernels: launched }) => launched));
    this.unlisted = new Set(all.filter((kernel) => !listed.has(kernel)));
  }

  /** Begin to compile all kernels of `module`, a library on `device`, which tvm was given. */
  static compile(
    tvm: tvmjs.Instance,
    module: tvmjs.Module,
    device: GPUDevice,
    library: Library,
    manifest: Manifest,
    onProgress?: LoadOptions["onProgress"],
  ): Pipelines {
    const facts: Record<string, unknown> = JSON.parse(inScope(tvm, () => module.getFunction(KERNELS, true)()));
    const pipelines = new Pipelines(library, Object.keys(facts));
    pipelines.onProgress = onProgress;
    watchPipelines(device, (progress) => pipelines.onProgress?.(progress));
    onProgress?.({ phase: "compile", done: 0, total: pipelines.all.length }); // the load may end before the first is there
    const inOrder = [...functionsInOrder(manifest).map((name) => pipelines.kernelsOf.get(name) ?? []), pipelines.all];
    for (const kernels of inOrder) {
      const others = kernels.filter((kernel) => !pipelines.compiled.has(kernel));
      if (!others.length) continue;
      const compiled = tvm.asyncLoadWebGPUPipelines(partOf(module, facts, others));
      compiled.catch(() => {}); // whoever needs these kernels hears of it
      for (const kernel of others) pipelines.compiled.set(kernel, compiled);
    }
    return pipelines;
  }

  /**
   * Wait until all kernels of a function can be launched.
   *
   * Throws the error of a kernel that does not compile. An abort ends the wait, and the kernels are compiled on.
   */
  async ready(functionName: string, { onProgress = this.onProgress, signal }: LoadOptions = {}): Promise<void> {
    const compiled = Promise.all(new Set(this.of(functionName).map((kernel) => this.compiled.get(kernel))));
    const heard = this.onProgress;
    this.onProgress = onProgress;
    try {
      await untilAborted(compiled, signal);
    } finally {
      this.onProgress = heard;
    }
  }

  /** The kernels that a function may launch. */
  private of(functionName: string): readonly string[] {
    const kernels = this.kernelsOf.get(functionName);
    return kernels === undefined ? this.all : [...kernels, ...this.unlisted];
  }
}

/** The functions of a library, those first that a picture calls first. */
function functionsInOrder(manifest: Manifest): string[] {
  const { components, params, variants } = manifest;
  const drawing = drawingComponents(manifest);
  const own = [...new Set([...drawing, ...Object.keys(components)])].map((name) => components[name]?.function);
  const others = variants.flatMap(({ functions }) => Object.values(functions).map((entry) => entry.function));
  return [...params.merged.map((merged) => merged.function), ...own.filter((name) => name !== undefined), ...others];
}

/** The module as if it had only these kernels. */
function partOf(module: tvmjs.Module, facts: Record<string, unknown>, kernels: readonly string[]): tvmjs.Module {
  const part = JSON.stringify(Object.fromEntries(kernels.map((kernel) => [kernel, facts[kernel]])));
  const getFunction = (name: string, ...query: [boolean?]) =>
    name === KERNELS ? () => part : module.getFunction(name, ...query);
  return { getFunction } as unknown as tvmjs.Module;
}

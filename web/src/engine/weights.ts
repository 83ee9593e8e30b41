/**
 * Weights: from a bundle's shards into the GPU's memory, to stay there or to come for a component's calls.
 * Which do what is planned in Python and written into the manifest; why so: mlc_controlnet/export/weight_residency.py.
 */

import type * as tvmjs from "@mlc-ai/web-runtime";
import type { ComponentName } from "./components.ts";
import { UserError } from "./errors.ts";
import { widenFloat16 } from "./float16.ts";
import type { Bundle, ReadOptions } from "./load.ts";
import { drawingComponents, type Library, type Manifest, type MemoryMode, type ParamRecord } from "./manifest.ts";
import { bytesOf, createTensor, fillTensor, inScope } from "./tensor.ts";

/** Downloads that run side by side: enough to fill a connection, few enough to keep memory low. */
const PARALLEL_DOWNLOADS = 3;

/**
 * Bytes that are written to the GPU before the next wait. queue.writeBuffer copies into memory that the GPU can reach and
 * frees it when the copy is done: without waiting, everything would be there twice.
 */
const UPLOAD_BYTES = 32 * 2 ** 20;

/** They take turns at every step: what they work in is kept for the next one, where no weight has to come or go. */
const EVERY_STEP: ReadonlySet<ComponentName | undefined> = new Set<ComponentName>(["controlnet", "unet"]);

/** A weight on the host, as the library takes it. */
interface HostWeight {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** All weights of the components that draw. One component at a time has its turn, and all its weights on the GPU. */
export class Weights {
  /** What each component's function takes last: those whose weights are all on the GPU. */
  private readonly tuples = new Map<ComponentName, tvmjs.TVMArray>();
  private turn: ComponentName | undefined;

  private constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly gpu: tvmjs.DLDevice,
    private readonly params: Readonly<Record<ComponentName, readonly string[]>>,
    /** On the GPU for good, by name. */
    private readonly kept: ReadonlyMap<string, tvmjs.Tensor>,
    /** On the host, for the component's turn. */
    private readonly waiting: ReadonlyMap<string, HostWeight>,
  ) {}

  /** Fetch the needed shards; what stays on the GPU is uploaded as it arrives. */
  static async load(
    tvm: tvmjs.Instance,
    gpu: tvmjs.DLDevice,
    bundle: Bundle,
    library: Library,
    mode: MemoryMode,
    options: ReadOptions,
  ): Promise<Weights> {
    const { components } = bundle.manifest;
    const drawing = drawingComponents(bundle.manifest);
    const params = Object.fromEntries(drawing.map((name) => [name, components[name].params]));
    const staying = new Set(drawing.flatMap((name) => params[name].slice(0, mode.kept_params[name])));
    const kept = new Map<string, tvmjs.Tensor>();
    const waiting = new Map<string, HostWeight>();
    await fetchRecords(bundle, options, async (bytes, records) => {
      for (const record of records) {
        const weight = { shape: record.shape, ...decodeRecord(bytes, record, library.dtype) };
        if (staying.has(record.name)) kept.set(record.name, upload(tvm, gpu, weight));
        else waiting.set(record.name, { ...weight, bytes: weight.bytes.slice() }); // lets go of the shard
      }
      await gpu.sync();
    });
    return new Weights(tvm, gpu, params as Weights["params"], kept, waiting);
  }

  /**
   * Make it `name`'s turn; returns its weights in the order of its function. What the last component worked in is freed, and
   * so are its weights, except those that stay. `sync` waits for the GPU: what is freed is only then free.
   */
  async take(name: ComponentName, sync: () => Promise<void>): Promise<tvmjs.TVMArray> {
    const there = this.tuples.get(name);
    if (there !== undefined && this.turn === name) return there;
    const last = this.turn;
    this.turn = name;
    const swaps = this.leaves(last) || this.leaves(name);
    if (swaps || !EVERY_STEP.has(last) || !EVERY_STEP.has(name)) this.freeWorkspace();
    if (last !== undefined && this.leaves(last)) {
      this.tuples.get(last)?.dispose();
      this.tuples.delete(last);
    }
    return there ?? this.bring(name, sync);
  }

  /** Give back what components have worked in: TVM keeps it for the next call. */
  freeWorkspace(): void {
    inScope(this.tvm, (scope) => scope.getGlobalFunc("vm.builtin.memory_manager.clear")());
  }

  dispose(): void {
    for (const tuple of this.tuples.values()) tuple.dispose();
    for (const weight of this.kept.values()) weight.dispose();
  }

  private leaves(name: ComponentName | undefined): boolean {
    return name !== undefined && this.params[name].some((param) => this.waiting.has(param));
  }

  private async bring(name: ComponentName, sync: () => Promise<void>): Promise<tvmjs.TVMArray> {
    const brought = new Map<string, tvmjs.Tensor>();
    let written = UPLOAD_BYTES; // waits at first for what is being freed
    try {
      for (const param of this.params[name]) {
        const weight = this.waiting.get(param);
        if (weight === undefined) continue;
        if (written >= UPLOAD_BYTES) {
          await sync();
          written = 0;
        }
        brought.set(param, upload(this.tvm, this.gpu, weight));
        written += weight.bytes.length;
      }
      const weights = this.params[name].map((param) => this.kept.get(param) ?? brought.get(param));
      const tuple = inScope(this.tvm, (scope) => scope.detachFromCurrentScope(scope.makeTVMArray(weights)));
      this.tuples.set(name, tuple);
      return tuple;
    } finally {
      for (const weight of brought.values()) weight.dispose(); // the tuple has its own hold on them
    }
  }
}

/**
 * The shards that hold a param of a component we run, each with those of its records that are needed.
 *
 * Throws UserError where the bundle lacks a component.
 */
export function neededShards(manifest: Manifest): Map<string, ParamRecord[]> {
  const drawing = drawingComponents(manifest);
  const lacking = drawing.filter((component) => !Object.hasOwn(manifest.components, component));
  if (lacking.length) {
    const remedy = "build the bundle from a model with a ControlNet";
    throw new UserError("bundle", `no ${lacking.join(", ")}`, drawing.join(", "), remedy);
  }
  const needed = new Set(drawing.flatMap((component) => manifest.components[component].params));
  const shards = new Map<string, ParamRecord[]>();
  for (const record of manifest.params.records) {
    if (!needed.has(record.name)) continue;
    const shard = manifest.params.shards[record.shard];
    shards.set(shard, [...(shards.get(shard) ?? []), record]);
  }
  return shards;
}

/** One weight as the library takes it: WGSL without shader-f16 cannot read float16, so that becomes float32, exactly. */
export function decodeRecord(
  shard: Uint8Array<ArrayBuffer>,
  record: ParamRecord,
  computeDtype: string,
): { dtype: string; bytes: Uint8Array<ArrayBuffer> } {
  const bytes = shard.subarray(record.byte_offset, record.byte_offset + record.bytes);
  if (record.dtype !== "float16" || computeDtype === "float16") return { dtype: record.dtype, bytes };
  return { dtype: computeDtype, bytes: bytesOf(widenFloat16(bytes)) };
}

/** Fetch the needed shards, some side by side, and hand each to `use` with its records as it arrives. */
async function fetchRecords(
  bundle: Bundle,
  options: ReadOptions,
  use: (bytes: Uint8Array<ArrayBuffer>, records: readonly ParamRecord[]) => Promise<void>,
): Promise<void> {
  const waiting = [...neededShards(bundle.manifest)];
  const stop = new AbortController(); // one failed download ends the others
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const download = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [shard, records] = next;
      const bytes = await bundle.readFile(shard, { ...options, signal });
      signal.throwIfAborted();
      await use(bytes, records);
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL_DOWNLOADS }, download));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

function upload(tvm: tvmjs.Instance, gpu: tvmjs.DLDevice, { shape, dtype, bytes }: HostWeight): tvmjs.Tensor {
  const tensor = createTensor(tvm, gpu, shape, dtype);
  fillTensor(tvm, tensor, bytes);
  return tensor;
}

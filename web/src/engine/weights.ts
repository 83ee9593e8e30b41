/**
 * Weights: read a bundle's shards and upload the weights to the GPU, for good or while one component runs.
 * The manifest lists the weights that stay on the GPU. mlc_controlnet/export/weight_residency.py plans that list and
 * explains it.
 */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { UserError } from "./errors.ts";
import { widenFloat16 } from "./float16.ts";
import type { Bundle, ReadOptions } from "./load.ts";
import {
  drawingComponents,
  type Library,
  loadedComponents,
  type Manifest,
  type MemoryMode,
  type ParamRecord,
} from "./manifest.ts";
import { bytesOf, createTensor, fillTensor, inScope } from "./tensor.ts";

/** The number of parallel downloads: enough to fill a connection, few enough to keep memory low. */
const PARALLEL_DOWNLOADS = 3;

/**
 * The number of bytes to write to the GPU before the next wait. queue.writeBuffer copies into memory that the GPU can
 * reach, and frees it when the copy is done. Without waiting, that memory would hold a second copy of all weights.
 */
const UPLOAD_BYTES = 32 * 2 ** 20;

/** The components that run at every step. They keep their workspace between turns, unless weights come or go. */
const EVERY_STEP: ReadonlySet<string | undefined> = new Set(["controlnet", "unet"]);

/** A weight on the host, in the dtype that the library reads. */
interface HostWeight {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * All weights of the components that draw. One component at a time has its turn, and during its turn all its weights
 * are on the GPU.
 */
export class Weights {
  /** The last argument of each component's function, for the components whose weights are all on the GPU. */
  private readonly tuples = new Map<string, tvmjs.TVMArray>();
  private turn: string | undefined;

  private constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly gpu: tvmjs.DLDevice,
    private readonly params: Readonly<Record<string, readonly string[]>>,
    /** The weights that stay on the GPU, by name. */
    private readonly kept: ReadonlyMap<string, tvmjs.Tensor>,
    /** The weights on the host, which are uploaded for a component's turn. */
    private readonly waiting: ReadonlyMap<string, HostWeight>,
  ) {}

  /** Fetch the needed shards, and upload the weights that stay on the GPU as they arrive. */
  static async load(
    tvm: tvmjs.Instance,
    gpu: tvmjs.DLDevice,
    bundle: Bundle,
    library: Library,
    mode: MemoryMode,
    options: ReadOptions,
  ): Promise<Weights> {
    const { components } = bundle.manifest;
    const loaded = loadedComponents(bundle.manifest);
    const params = Object.fromEntries(loaded.map((name) => [name, components[name].params]));
    const staying = new Set(loaded.flatMap((name) => params[name].slice(0, mode.kept_params[name])));
    const kept = new Map<string, tvmjs.Tensor>();
    const waiting = new Map<string, HostWeight>();
    await fetchRecords(bundle, options, async (bytes, records) => {
      for (const record of records) {
        const weight = { shape: record.shape, ...decodeRecord(bytes, record, library.dtype) };
        if (staying.has(record.name)) kept.set(record.name, upload(tvm, gpu, weight));
        else waiting.set(record.name, { ...weight, bytes: weight.bytes.slice() }); // copied, so the shard can be freed
      }
      await gpu.sync();
    });
    return new Weights(tvm, gpu, params, kept, waiting);
  }

  /**
   * Start the turn of `name`, and return its weights in the order that its function expects. Frees the last component's
   * workspace, and its weights except those that stay. `sync` waits for the GPU, which frees memory after its work.
   */
  async take(name: string, sync: () => Promise<void>): Promise<tvmjs.TVMArray> {
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

  /** Free the components' workspace, which TVM keeps for the next call. */
  freeWorkspace(): void {
    inScope(this.tvm, (scope) => scope.getGlobalFunc("vm.builtin.memory_manager.clear")());
  }

  dispose(): void {
    for (const tuple of this.tuples.values()) tuple.dispose();
    for (const weight of this.kept.values()) weight.dispose();
  }

  private leaves(name: string | undefined): boolean {
    return name !== undefined && this.params[name].some((param) => this.waiting.has(param));
  }

  private async bring(name: string, sync: () => Promise<void>): Promise<tvmjs.TVMArray> {
    const brought = new Map<string, tvmjs.Tensor>();
    let written = UPLOAD_BYTES; // so that the first upload waits for memory that is being freed
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
      for (const weight of brought.values()) weight.dispose(); // the tuple holds its own references
    }
  }
}

/**
 * List the shards that the drawing components need, each with its needed records.
 *
 * Throws UserError if the bundle lacks a component.
 */
export function neededShards(manifest: Manifest): Map<string, ParamRecord[]> {
  const drawing = drawingComponents(manifest);
  const lacking = drawing.filter((component) => !Object.hasOwn(manifest.components, component));
  if (lacking.length) {
    const remedy = "build the bundle from a model with a ControlNet";
    throw new UserError("bundle", `no ${lacking.join(", ")}`, drawing.join(", "), remedy);
  }
  const needed = new Set(loadedComponents(manifest).flatMap((component) => manifest.components[component].params));
  const shards = new Map<string, ParamRecord[]>();
  for (const record of manifest.params.records) {
    if (!needed.has(record.name)) continue;
    const shard = manifest.params.shards[record.shard];
    shards.set(shard, [...(shards.get(shard) ?? []), record]);
  }
  return shards;
}

/**
 * Read one weight from its shard, in the dtype that the library reads. WGSL without shader-f16 cannot read float16, so
 * for a float32 library float16 is widened, exactly.
 */
export function decodeRecord(
  shard: Uint8Array<ArrayBuffer>,
  record: ParamRecord,
  computeDtype: string,
): { dtype: string; bytes: Uint8Array<ArrayBuffer> } {
  const bytes = shard.subarray(record.byte_offset, record.byte_offset + record.bytes);
  if (record.dtype !== "float16" || computeDtype === "float16") return { dtype: record.dtype, bytes };
  return { dtype: computeDtype, bytes: bytesOf(widenFloat16(bytes)) };
}

/** Fetch the needed shards, several in parallel, and pass each to `use` with its records as it arrives. */
async function fetchRecords(
  bundle: Bundle,
  options: ReadOptions,
  use: (bytes: Uint8Array<ArrayBuffer>, records: readonly ParamRecord[]) => Promise<void>,
): Promise<void> {
  const waiting = [...neededShards(bundle.manifest)];
  const stop = new AbortController(); // a failed download stops the others
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

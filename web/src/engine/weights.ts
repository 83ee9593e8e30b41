/**
 * Weights: read a bundle's shards and upload the weights to the GPU, for good or while one component runs.
 * The manifest lists the weights that stay on the GPU. mlc_controlnet/export/weight_residency.py plans that list and
 * explains it.
 */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { UserError } from "./errors.ts";
import { widenFloat16 } from "./float16.ts";
import type { Bundle, ReadOptions } from "./load.ts";
import type { Library, Manifest, MemoryMode, MergedParam, ParamRecord } from "./manifest.ts";
import type { Pipelines } from "./pipelines.ts";
import { bytesOf, createTensor, fillTensor, inScope } from "./tensor.ts";

/** The number of parallel downloads: enough to fill a connection. */
const PARALLEL_DOWNLOADS = 3;

/** The bytes of shards that are in memory at a time, or else one shard: hashing and uploading a shard takes copies. */
const SHARD_BYTES_AT_A_TIME = 64 * 2 ** 20;

/**
 * The number of bytes to write to the GPU before the next wait. queue.writeBuffer copies into memory that the GPU can
 * reach, and frees it when the copy is done. Without waiting, that memory would hold a second copy of all weights.
 */
const UPLOAD_BYTES = 32 * 2 ** 20;

/** The kinds of components that run at every step. They keep their workspace between turns, unless weights come or go. */
const EVERY_STEP: ReadonlySet<string> = new Set(["controlnet", "residual_sum", "unet", "unet_shallow"]);

/** A weight on the host, in the dtype that the library reads. */
interface HostWeight {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * The weights of the components that pictures have used so far. One component at a time has its turn, and during its turn
 * all its weights are on the GPU. Merged weights are made before their component's first turn.
 */
export class Weights {
  /** The last argument of each component's function, for the components whose weights are all on the GPU. */
  private readonly tuples = new Map<string, tvmjs.TVMArray>();
  private turn: string | undefined;
  private readonly params: Readonly<Record<string, readonly string[]>>;
  /** The names of the weights that stay on the GPU once they are there. */
  private readonly staying: ReadonlySet<string>;
  /** Those that are there. */
  private readonly kept = new Map<string, tvmjs.Tensor>();
  /** The weights on the host, which are uploaded for a component's turn or to make a merged weight. */
  private readonly waiting = new Map<string, HostWeight>();
  private readonly merged: ReadonlyMap<string, MergedParam>;

  constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly target: tvmjs.DLDevice,
    private readonly vm: tvmjs.VirtualMachine,
    private readonly bundle: Bundle,
    private readonly library: Library,
    mode: MemoryMode,
    /** Frees the workspace that calls of components keep for the next one. */
    readonly freeWorkspace: () => void,
    private readonly pipelines?: Pipelines,
  ) {
    const components = Object.entries(bundle.manifest.components);
    this.params = Object.fromEntries(components.map(([name, { params }]) => [name, params]));
    this.merged = mergedParams(bundle.manifest);
    this.staying = new Set(components.flatMap(([name, { params }]) => params.slice(0, mode.kept_params[name])));
  }

  /** List the shards with weights of `components` that are not here yet, each with these weights. */
  lacking(components: readonly string[]): Map<string, ParamRecord[]> {
    return neededShards(this.bundle.manifest, components, (param) => this.isHere(param));
  }

  /** Fetch what `lacking` listed, and upload the weights that stay on the GPU as they arrive. */
  async fetch(shards: ReadonlyMap<string, readonly ParamRecord[]>, options: ReadOptions): Promise<void> {
    await fetchRecords(this.bundle, shards, options, async (bytes, records) => {
      for (const record of records) {
        const weight = { shape: record.shape, ...decodeRecord(bytes, record, this.library.dtype) };
        if (this.staying.has(record.name)) this.kept.set(record.name, upload(this.tvm, this.target, weight));
        else this.waiting.set(record.name, { ...weight, bytes: weight.bytes.slice() }); // so the shard can be freed
      }
      await this.target.sync();
    });
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
    const alternates = [last, name].every((one) => one !== undefined && EVERY_STEP.has(kindOf(one)));
    if (swaps || !alternates) this.freeWorkspace();
    if (last !== undefined && this.leaves(last)) {
      this.tuples.get(last)?.dispose();
      this.tuples.delete(last);
    }
    return there ?? this.bring(name, sync);
  }

  /**
   * Make the merged weights of `name` that are not here yet, one after another. Those that do not stay on the GPU are
   * read back, and wait as others do. What they are made of is freed, unless a component reads it.
   */
  async merge(name: string, sync: () => Promise<void>): Promise<void> {
    const read = new Set(Object.values(this.params).flat());
    for (const param of this.params[name]) {
      const merged = this.merged.get(param);
      if (merged === undefined || this.isHere(param)) continue;
      const tensor = await this.make(merged, sync);
      if (this.staying.has(param)) this.kept.set(param, tensor);
      else this.waiting.set(param, await this.readBack(tensor, sync));
      for (const source of merged.sources) if (!read.has(source)) this.waiting.delete(source);
    }
  }

  dispose(): void {
    for (const tuple of this.tuples.values()) tuple.dispose();
    for (const weight of this.kept.values()) weight.dispose();
  }

  private isHere(param: string): boolean {
    return this.kept.has(param) || this.waiting.has(param);
  }

  private leaves(name: string | undefined): boolean {
    return name !== undefined && this.params[name].some((param) => this.waiting.has(param));
  }

  private async make({ function: name, sources }: MergedParam, sync: () => Promise<void>): Promise<tvmjs.Tensor> {
    await this.pipelines?.ready(name);
    const brought: tvmjs.Tensor[] = [];
    try {
      const tensors = sources.map((source) => {
        const there = this.kept.get(source);
        if (there !== undefined) return there;
        brought.push(upload(this.tvm, this.target, this.waiting.get(source) as HostWeight));
        return brought[brought.length - 1];
      });
      const made = inScope(this.tvm, (scope) =>
        scope.detachFromCurrentScope(this.vm.getFunction(name)(...tensors) as tvmjs.Tensor),
      );
      await sync();
      return made;
    } finally {
      for (const tensor of brought) tensor.dispose();
      this.freeWorkspace();
    }
  }

  /** Copy a tensor to the host, and free it. */
  private async readBack(tensor: tvmjs.Tensor, sync: () => Promise<void>): Promise<HostWeight> {
    const { shape, dtype } = tensor;
    const copy = inScope(this.tvm, (scope) => scope.detachFromCurrentScope(scope.empty(shape, dtype, scope.cpu())));
    copy.copyFrom(tensor); // queued; the values are there after sync
    tensor.dispose();
    await sync();
    const bytes = copy.toRawBytes().slice();
    copy.dispose();
    return { shape, dtype, bytes };
  }

  private async bring(name: string, sync: () => Promise<void>): Promise<tvmjs.TVMArray> {
    await this.merge(name, sync);
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
        brought.set(param, upload(this.tvm, this.target, weight));
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

/** Return a component's name without the number of a ControlNet: `controlnet` for `controlnet_2`. */
export function kindOf(name: string): string {
  return name.replace(/^(controlnet|control_embedding)_\d+$/, "$1");
}

/** The weights that the GPU makes of others, by name. */
function mergedParams({ params }: Manifest): ReadonlyMap<string, MergedParam> {
  return new Map(params.merged.map((merged) => [merged.name, merged]));
}

/**
 * List the shards that `components` need, each with the weights that they need of it, except those that `isHere`.
 *
 * Throws UserError if the bundle lacks a component.
 */
export function neededShards(
  manifest: Manifest,
  components: readonly string[],
  isHere: (param: string) => boolean = () => false,
): Map<string, ParamRecord[]> {
  const lacking = components.filter((component) => !Object.hasOwn(manifest.components, component));
  if (lacking.length) {
    const remedy = "build the bundle again without --component";
    throw new UserError("bundle", `no ${lacking.join(", ")}`, components.join(", "), remedy, "bad-bundle");
  }
  const merged = mergedParams(manifest);
  const params = components.flatMap((component) => manifest.components[component].params);
  const needed = new Set(
    params.filter((param) => !isHere(param)).flatMap((param) => merged.get(param)?.sources ?? [param]),
  );
  const shards = new Map<string, ParamRecord[]>();
  for (const record of manifest.params.records) {
    if (!needed.has(record.name) || isHere(record.name)) continue;
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

/** Fetch shards, several in parallel, and pass each to `use` with its records as it arrives. */
async function fetchRecords(
  bundle: Bundle,
  shards: ReadonlyMap<string, readonly ParamRecord[]>,
  options: ReadOptions,
  use: (bytes: Uint8Array<ArrayBuffer>, records: readonly ParamRecord[]) => Promise<void>,
): Promise<void> {
  const sizes = new Map(bundle.manifest.files.map(({ path, bytes }) => [path, bytes]));
  const room = new Room(SHARD_BYTES_AT_A_TIME);
  const waiting = [...shards];
  const stop = new AbortController(); // a failed download stops the others
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const download = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [shard, records] = next;
      await room.hold(sizes.get(shard) ?? 0, async () => {
        signal.throwIfAborted();
        const bytes = await bundle.readFile(shard, { ...options, signal });
        signal.throwIfAborted();
        await use(bytes, records);
      });
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL_DOWNLOADS }, download));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

/** Lets actions run at the same time whose bytes fit together; one that does not fit runs alone. */
class Room {
  private used = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(private readonly bytes: number) {}

  async hold(bytes: number, action: () => Promise<void>): Promise<void> {
    while (this.used > 0 && this.used + bytes > this.bytes) {
      await new Promise<void>((wake) => {
        this.waiting.push(wake);
      });
    }
    this.used += bytes;
    try {
      await action();
    } finally {
      this.used -= bytes;
      for (const wake of this.waiting.splice(0)) wake();
    }
  }
}

function upload(tvm: tvmjs.Instance, gpu: tvmjs.DLDevice, { shape, dtype, bytes }: HostWeight): tvmjs.Tensor {
  const tensor = createTensor(tvm, gpu, shape, dtype);
  fillTensor(tvm, tensor, bytes);
  return tensor;
}

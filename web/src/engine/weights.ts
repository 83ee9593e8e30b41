/** Weights: from a bundle's shards into the GPU's memory. */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { COMPONENTS } from "./components";
import { UserError } from "./errors";
import { widenFloat16 } from "./float16";
import type { Bundle, ReadOptions } from "./load";
import type { Library, Manifest, ParamRecord } from "./manifest";
import { bytesOf, createTensor, fillTensor } from "./tensor";

/** Downloads that run side by side: enough to fill a connection, few enough to keep memory low. */
const PARALLEL_DOWNLOADS = 3;

/**
 * The shards that hold a param of a component we run, each with those of its records that are needed.
 *
 * Throws UserError where the bundle lacks a component.
 */
export function neededShards(manifest: Manifest): Map<string, ParamRecord[]> {
  const lacking = COMPONENTS.filter((component) => !Object.hasOwn(manifest.components, component));
  if (lacking.length) {
    const remedy = "build the bundle from a model with a ControlNet";
    throw new UserError("bundle", `no ${lacking.join(", ")}`, COMPONENTS.join(", "), remedy);
  }
  const needed = new Set(COMPONENTS.flatMap((component) => manifest.components[component].params));
  const shards = new Map<string, ParamRecord[]>();
  for (const record of manifest.params.records) {
    if (!needed.has(record.name)) continue;
    const shard = manifest.params.shards[record.shard];
    shards.set(shard, [...(shards.get(shard) ?? []), record]);
  }
  return shards;
}

/** Fetch the needed shards and upload each as it arrives: by param name, tensors that belong to the caller. */
export async function loadWeights(
  tvm: tvmjs.Instance,
  gpu: tvmjs.DLDevice,
  bundle: Bundle,
  library: Library,
  options: ReadOptions,
): Promise<Map<string, tvmjs.Tensor>> {
  const weights = new Map<string, tvmjs.Tensor>();
  const waiting = [...neededShards(bundle.manifest)];
  const stop = new AbortController(); // one failed download ends the others
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const download = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [shard, records] = next;
      const bytes = await bundle.readFile(shard, { ...options, signal });
      signal.throwIfAborted();
      for (const record of records) {
        const weight = decodeRecord(bytes, record, library.dtype);
        const tensor = createTensor(tvm, gpu, record.shape, weight.dtype);
        fillTensor(tvm, tensor, weight.bytes);
        weights.set(record.name, tensor);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL_DOWNLOADS }, download));
  } catch (error) {
    stop.abort();
    throw error;
  }
  return weights;
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

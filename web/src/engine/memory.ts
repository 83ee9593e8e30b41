/** Choose how the bundle's weights use GPU memory: one of the manifest's two modes. */

import { gigabytes } from "./byte_text.ts";
import { UserError } from "./errors.ts";
import type { Manifest, MemoryMode } from "./manifest.ts";
import { type Notice, noticeOf } from "./notices.ts";

/** All weights stay in GPU memory, or part of them only while their component runs: slower, with less memory. */
export type MemoryName = "resident" | "reduced";

/** `auto`: resident, unless the GPU looks too small for it or turns out to be. */
export type MemoryChoice = MemoryName | "auto";

/** The GPU memory that a library needs in each mode, from the manifest. */
export type MemoryPlan = Manifest["memory"][string];

/** The GPU memory that one library needs in one mode. */
export interface Memory extends MemoryMode {
  readonly name: MemoryName;
}

/**
 * WebGPU does not report the size of GPU memory. The largest buffer that an adapter grants is a hint: browsers derive it
 * from the size of the memory heaps, and only small GPUs stay at the default of 256 MiB. If eight such buffers do not hold
 * the model, the engine does not try the resident mode. Otherwise it allocates, and falls back if that fails.
 */
export const BUFFERS_PER_HEAP = 8;

/** Choose the first mode to try. `maxBufferBytes` is the largest buffer that the adapter grants. */
export function chooseMemory(choice: MemoryChoice, plan: MemoryPlan, maxBufferBytes: number): Memory {
  const small = plan.resident.peak_bytes > BUFFERS_PER_HEAP * maxBufferBytes;
  const name = choice === "auto" ? (small ? "reduced" : "resident") : choice;
  return { name, ...plan[name] };
}

/** What to tell before a download about a GPU that looks too small for the model in any mode; undefined for others. */
export function noticeOfMemory(plan: MemoryPlan, maxBufferBytes: number): Notice | undefined {
  const neededBytes = Math.min(plan.resident.peak_bytes, plan.reduced.peak_bytes);
  const estimatedBytes = BUFFERS_PER_HEAP * maxBufferBytes;
  if (neededBytes <= estimatedBytes) return undefined;
  return noticeOf("gpu-looks-small", { estimatedBytes, neededBytes });
}

/** The error for a GPU whose memory is full. */
export class MemoryFullError extends UserError {
  /** `askedBytes` are those that did not fit, if they are known. */
  constructor({ name, peak_bytes }: Memory, askedBytes = 0) {
    const wanted = `${gigabytes(peak_bytes)} for the model`;
    const got = askedBytes ? `less than ${gigabytes(askedBytes)}` : "none left";
    const others = "close other tabs and programs that use the GPU and try again";
    const remedy = name === "resident" ? `${others}, or save GPU memory in the settings` : others;
    super("GPU memory", got, wanted, `${remedy}: the model is loaded again`, "gpu-memory-full");
  }
}

/** How a bundle's weights share the GPU's memory: which of the manifest's two modes a device can have. */

import { UserError } from "./errors.ts";
import type { Manifest, MemoryMode } from "./manifest.ts";

/** All weights stay on the GPU, or a part of them comes for a component's calls: slower, and a third less memory. */
export type MemoryName = "resident" | "reduced";

/** `auto`: resident, unless the GPU looks too small for it or turns out to be. */
export type MemoryChoice = MemoryName | "auto";

/** What a library takes of the GPU in each mode: the manifest's figures. */
export type MemoryPlan = Manifest["memory"][string];

/** What one library takes of the GPU in one of the two modes. */
export interface Memory extends MemoryMode {
  readonly name: MemoryName;
}

/**
 * Nobody tells how much memory a GPU has. The largest buffer that it grants is a hint: browsers derive it from the size of
 * its memory heaps, and only small ones stay at WebGPU's default of 256 MiB. Where eight of those do not hold the model,
 * the resident mode is not even tried. Everything else is found out by allocating.
 */
const BUFFERS_A_HEAP = 8;

/** The mode to begin with. `maxBufferBytes` is the largest buffer that the adapter grants. */
export function chooseMemory(choice: MemoryChoice, plan: MemoryPlan, maxBufferBytes: number): Memory {
  const small = plan.resident.peak_bytes > BUFFERS_A_HEAP * maxBufferBytes;
  const name = choice === "auto" ? (small ? "reduced" : "resident") : choice;
  return { name, ...plan[name] };
}

/** The error for a GPU whose memory is full. */
export class MemoryFullError extends UserError {
  constructor({ name, peak_bytes }: Memory) {
    const wanted = `${gigabytes(peak_bytes)} for the model`;
    const others = "close other tabs and programs that use the GPU and try again";
    const remedy = name === "resident" ? `${others}, or save GPU memory in the settings` : others;
    super("GPU memory", "none left", wanted, `${remedy}: the model is loaded anew`);
  }
}

/** "2.2 GB" or "18 MB" */
export function gigabytes(bytes: number): string {
  return bytes < 0.1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(Math.ceil(bytes / 0.1e9) / 10).toFixed(1)} GB`;
}

/** The progress of loading. */

import type { Bundle, ReadOptions } from "./load.ts";
import type { Library } from "./manifest.ts";
import { neededShards } from "./weights.ts";

/** Bytes downloaded, or kernels compiled; the two phases overlap. */
export interface Progress {
  readonly phase: "download" | "compile";
  readonly done: number;
  readonly total: number;
}

export interface LoadOptions {
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** Make the read options for the library and the shards. `onProgress` receives the sum of their bytes. */
export function withDownloadMeter(bundle: Bundle, library: Library, { onProgress, signal }: LoadOptions): ReadOptions {
  const paths = new Set([library.file, ...neededShards(bundle.manifest).keys()]);
  const total = bundle.manifest.files.reduce((sum, file) => sum + (paths.has(file.path) ? file.bytes : 0), 0);
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    onProgress?.({ phase: "download", done, total });
  };
  return { signal, onBytes };
}

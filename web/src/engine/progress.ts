/** The progress of loading. */

import type { Bundle, ReadOptions } from "./load.ts";

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

/** Make the options to read some files of a bundle. `onProgress` receives the sum of their bytes. */
export function withDownloadMeter(
  bundle: Bundle,
  files: Iterable<string>,
  { onProgress, signal }: LoadOptions,
): ReadOptions {
  const paths = new Set(files);
  const total = bundle.manifest.files.reduce((sum, file) => sum + (paths.has(file.path) ? file.bytes : 0), 0);
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    onProgress?.({ phase: "download", done, total });
  };
  return { signal, onBytes };
}

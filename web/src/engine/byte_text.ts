/** Numbers of bytes for readers. */

/** "2.2 GB" or "18 MB" */
export function gigabytes(bytes: number): string {
  return bytes < 0.1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(Math.ceil(bytes / 0.1e9) / 10).toFixed(1)} GB`;
}

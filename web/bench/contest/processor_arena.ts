/** Both contestants on the processor, by WebAssembly, with as many threads for each. */

import type { Arena, Host, Job } from "./job";
import { OursOnProcessor } from "./ours_on_processor";
import { PeerOnProcessor } from "./peer_on_processor";

/** onnxruntime's threads look for work for some milliseconds after their last, and would take the other's time. */
const REST_MS = 50;

/** Open both contestants. Throws if this page or program gives one of them fewer threads than the job wants. */
export async function openOnProcessor(job: Job, { readFile, ortModule, onProgress }: Host): Promise<Arena> {
  const threads = job.threads ?? 1;
  if (threads > 1 && globalThis.crossOriginIsolated !== true) {
    throw new Error(`${threads} threads need a cross-origin isolated page`);
  }
  const library = await readFile(job.library);
  onProgress("opening our library");
  const began = performance.now();
  const ours = await OursOnProcessor.open(library, threads);
  const opened_ms = performance.now() - began;
  const peer = await PeerOnProcessor.open(ortModule, readFile, threads);
  return { ours, peer, opened_ms, copy_gigabytes_per_second: measureCopy(job.copy_bytes), rest_ms: REST_MS };
}

/** Measure a copy by one thread in gigabytes per second, counting the bytes read and the bytes written. */
function measureCopy(bytes: number): number {
  const [from, to] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes)];
  const seconds: number[] = [];
  for (let round = 0; round < 6; round++) {
    const began = performance.now();
    to.set(from);
    if (round > 0) seconds.push((performance.now() - began) / 1000);
  }
  return (2 * bytes) / Math.min(...seconds) / 1e9;
}

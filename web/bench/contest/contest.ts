/**
 * Run a contest between our library and onnxruntime-web on one device: both compute the same cases on the same numbers, in
 * turns. On a WebGPU adapter it runs in a page and, with Dawn's `navigator.gpu`, in Node; on the processor in a page's
 * worker and in Node.
 */

import { compete, median } from "./compete";
import type { CaseOutcome, Job, Outcome } from "./job";
import { openOnProcessor } from "./processor_arena";
import { openOnWebgpu } from "./webgpu_arena";

export { hasInstructionSet } from "../../src/engine/processor";
export { findAdapter } from "./webgpu_arena";

/**
 * Time every case of a job.
 *
 * @param base the URL of the job's folder, which has the peer's modules in `ort/`
 * @param ortModule the URL of the peer's module
 * @param onProgress receives one line per opened library and finished case
 */
export async function runContest(
  base: string,
  ortModule: string,
  onProgress: (line: string) => void,
): Promise<Outcome> {
  const readFile = async (name: string) => new Uint8Array(await (await fetch(new URL(name, base))).arrayBuffer());
  const job: Job = await (await fetch(new URL("job.json", base))).json();
  const open = job.threads === null ? openOnWebgpu : openOnProcessor;
  const arena = await open(job, { readFile, ortModule, onProgress });

  const cases: CaseOutcome[] = [];
  for (const work of job.cases) {
    const outcome = await compete(job, work, await readFile(work.values), arena);
    const once = cases.length ? 0 : arena.opened_ms; // the first case includes opening the library, which all cases share
    cases.push({ ...outcome, ours: { ...outcome.ours, load_ms: outcome.ours.load_ms + once } });
    const [mine, theirs] = [outcome.ours, outcome.peer].map(({ gpu_ms, wall_ms }) =>
      median(gpu_ms.length ? gpu_ms : wall_ms),
    );
    const peers = outcome.peer_db >= job.least_db ? outcome.peer_optimizations : "wrong";
    onProgress(
      `${work.name}: ${mine.toFixed(2)} ms, ${outcome.ours_db.toFixed(0)} dB, against ${theirs.toFixed(2)} ms, ` +
        `${outcome.peer_db.toFixed(0)} dB, optimizations: ${peers} (${cases.length} of ${job.cases.length})`,
    );
  }
  return { copy_gigabytes_per_second: arena.copy_gigabytes_per_second, cases };
}

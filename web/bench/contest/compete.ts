/** Let two contestants take turns at one case, and compare their outputs with torch's. */

import type { Arena, Case, CaseOutcome, Contestant, Job, LoadedCase, Optimizations, Timing } from "./job";
import { tensorBytes } from "./job";

const MOST_CALLS_A_TURN = 200;

/**
 * Time one case. Its peer gets a second try with fewer optimizations if its outputs are wrong. Against another function of
 * ours, both sides are ours.
 */
export async function compete(
  job: Job,
  work: Case,
  values: Uint8Array<ArrayBuffer>,
  { ours, peer, rest_ms }: Arena,
): Promise<CaseOutcome> {
  const wanted = work.outputs.map((entry) => new Float32Array(tensorBytes(values, entry).slice().buffer));
  const mine = await Side.load(ours, work, values, "all");
  const { against } = work;
  let theirs =
    against === null
      ? await Side.load(peer, work, values, "all")
      : await Side.load(ours, { ...work, ...against }, values, "all");
  let peer_optimizations: Optimizations = "all";
  if (against === null && !(signalToNoise(wanted, theirs.outputs) >= job.least_db)) {
    await theirs.loaded.dispose();
    peer_optimizations = "basic";
    theirs = await Side.load(peer, work, values, peer_optimizations);
  }
  const sides = [mine, theirs];
  for (const side of sides) await side.calibrate(job.turn_ms);
  for (let round = 0; round < job.rounds; round++) {
    for (const side of sides) await side.takeTurn(rest_ms, job.gpu_clock);
  }
  for (const { loaded } of sides) await loaded.dispose();
  return {
    name: work.name,
    ours: mine.timing(),
    peer: theirs.timing(),
    ours_db: signalToNoise(wanted, mine.outputs),
    peer_db: signalToNoise(wanted, theirs.outputs),
    peer_optimizations,
  };
}

/** One contestant's run of one case. */
class Side {
  private readonly wall: number[] = [];
  private readonly onGpu: number[] = [];
  private calls = 1;

  private constructor(
    readonly loaded: LoadedCase,
    private readonly contestant: Contestant,
    private readonly load_ms: number,
    private readonly first_call_ms: number,
    readonly outputs: readonly Float32Array[],
  ) {}

  static async load(
    contestant: Contestant,
    work: Case,
    values: Uint8Array<ArrayBuffer>,
    optimizations: Optimizations,
  ): Promise<Side> {
    const began = performance.now();
    const loaded = await contestant.load(work, values, optimizations);
    await loaded.finished();
    const ready = performance.now();
    const outputs = await loaded.outputs();
    return new Side(loaded, contestant, ready - began, performance.now() - ready, outputs);
  }

  /** Set the number of calls per turn so that a turn lasts about `turn_ms`. */
  async calibrate(turn_ms: number): Promise<void> {
    const began = performance.now();
    await this.loaded.call();
    await this.loaded.finished();
    this.calls = Math.max(1, Math.min(MOST_CALLS_A_TURN, Math.ceil(turn_ms / (performance.now() - began))));
  }

  async takeTurn(rest_ms: number, withClock: boolean): Promise<void> {
    if (rest_ms > 0) {
      await new Promise((resolve) => setTimeout(resolve, rest_ms));
      await this.loaded.call(); // the processor's caches hold what the other has used
    }
    const clock = withClock ? this.contestant.clock : undefined;
    clock?.start();
    const began = performance.now();
    for (let call = 0; call < this.calls; call++) await this.loaded.call();
    await this.loaded.finished();
    this.wall.push((performance.now() - began) / this.calls);
    if (clock !== undefined) this.onGpu.push((await clock.durations()).reduce((sum, ms) => sum + ms, 0) / this.calls);
  }

  timing(): Timing {
    const { load_ms, first_call_ms } = this;
    return { load_ms, first_call_ms, wall_ms: this.wall, gpu_ms: this.onGpu, calls_a_turn: this.calls };
  }
}

export function signalToNoise(reference: readonly Float32Array[], got: readonly Float32Array[]): number {
  let signal = 0;
  let noise = 0;
  reference.forEach((wanted, output) => {
    if (wanted.length !== got[output].length) noise = Number.NaN;
    wanted.forEach((value, i) => {
      signal += value * value;
      noise += (value - got[output][i]) ** 2;
    });
  });
  if (!Number.isFinite(noise)) return -200;
  return noise === 0 ? 200 : Math.min(200, 10 * Math.log10(signal / noise));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

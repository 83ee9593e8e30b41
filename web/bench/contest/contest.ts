/**
 * Run a contest between our library and onnxruntime-web on one adapter: both compute the same cases on the same
 * numbers, in turns. It runs in a page and, with Dawn's `navigator.gpu`, in Node.
 */

import { PassClock } from "../pass_clock.mjs";
import type { Adapter, Case, CaseOutcome, Contestant, Job, LoadedCase, Optimizations, Outcome, Timing } from "./job";
import { tensorBytes } from "./job";
import { Ours } from "./ours";
import { Peer } from "./peer";

const MOST_CALLS_A_TURN = 200;
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|software/i;

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
  const devices = watchDevices(navigator.gpu);
  const adapter = await requestAdapter();
  const library = await readFile(job.library);

  onProgress("opening our library: its pipelines are made");
  const began = performance.now();
  const ours = await Ours.open(adapter, library);
  const opened = performance.now() - began;
  const copyRate = await measureCopy(ours.device, job.copy_bytes);
  const peer = await Peer.open(ortModule, readFile, devices);

  const cases: CaseOutcome[] = [];
  const clocks = new Map<GPUDevice, PassClock>();
  for (const work of job.cases) {
    const outcome = await compete(job, work, await readFile(work.values), ours, peer, clocks);
    const once = cases.length ? 0 : opened; // the first case includes opening the library, which all cases share
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
  return { adapter: describe(adapter), copy_gigabytes_per_second: copyRate, cases };
}

/** Describe the adapter that a contest would use. */
export async function findAdapter(): Promise<Adapter> {
  return describe(await requestAdapter());
}

async function requestAdapter(): Promise<GPUAdapter> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new Error("no WebGPU adapter");
  return adapter;
}

function describe({ info, features }: GPUAdapter): Adapter {
  const { vendor, architecture, device, description } = info;
  const words = [vendor, architecture, device, description].filter(Boolean).join(" ");
  return {
    name: description || words || "an unnamed GPU",
    is_software: info.isFallbackAdapter || SOFTWARE.test(words),
    has_float16: features.has("shader-f16"),
  };
}

/** Return a list that grows with every device that is opened from now on, in order. */
function watchDevices(gpu: GPU): GPUDevice[] {
  const devices: GPUDevice[] = [];
  const requestAdapter = gpu.requestAdapter.bind(gpu);
  gpu.requestAdapter = async (options) => {
    const adapter = await requestAdapter(options);
    if (adapter === null) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      device.addEventListener("uncapturederror", ({ error }) => console.error(`WebGPU: ${error.message}`));
      devices.push(device);
      return device;
    };
    return adapter;
  };
  return devices;
}

async function compete(
  job: Job,
  work: Case,
  values: Uint8Array<ArrayBuffer>,
  ours: Ours,
  peer: Peer,
  clocks: Map<GPUDevice, PassClock>,
): Promise<CaseOutcome> {
  const wanted = work.outputs.map((entry) => new Float32Array(tensorBytes(values, entry).slice().buffer));
  const mine = await Side.load(ours, work, values, "all");
  let theirs = await Side.load(peer, work, values, "all");
  let peer_optimizations: Optimizations = "all";
  if (!(signalToNoise(wanted, theirs.outputs) >= job.least_db)) {
    await theirs.loaded.dispose();
    peer_optimizations = "basic";
    theirs = await Side.load(peer, work, values, peer_optimizations);
  }
  const sides = [mine, theirs];
  for (const side of sides) await side.calibrate(job.turn_ms);
  for (let round = 0; round < job.rounds; round++) {
    for (const side of sides) await side.takeTurn(job.gpu_clock ? clockOf(side.device, clocks) : undefined);
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

function clockOf(device: GPUDevice, clocks: Map<GPUDevice, PassClock>): PassClock | undefined {
  if (!device.features.has("timestamp-query")) return undefined;
  const clock = clocks.get(device) ?? new PassClock(device);
  clocks.set(device, clock);
  return clock;
}

/** One contestant's run of one case. */
class Side {
  private readonly wall: number[] = [];
  private readonly onGpu: number[] = [];
  private calls = 1;

  private constructor(
    readonly loaded: LoadedCase,
    readonly device: GPUDevice,
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
    return new Side(loaded, contestant.device, ready - began, performance.now() - ready, outputs);
  }

  /** Set the number of calls per turn so that a turn lasts about `turn_ms`. */
  async calibrate(turn_ms: number): Promise<void> {
    const began = performance.now();
    await this.loaded.call();
    await this.loaded.finished();
    this.calls = Math.max(1, Math.min(MOST_CALLS_A_TURN, Math.ceil(turn_ms / (performance.now() - began))));
  }

  async takeTurn(clock: PassClock | undefined): Promise<void> {
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

/** Measure a copy on the device in gigabytes per second, counting the bytes read and the bytes written. */
async function measureCopy(device: GPUDevice, bytes: number): Promise<number> {
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [from, to] = [device.createBuffer({ size: bytes, usage }), device.createBuffer({ size: bytes, usage })];
  const repeats = 10;
  const seconds: number[] = [];
  for (let round = 0; round < 6; round++) {
    const began = performance.now();
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < repeats; i++) encoder.copyBufferToBuffer(from, 0, to, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    if (round > 0) seconds.push((performance.now() - began) / 1000);
  }
  from.destroy();
  to.destroy();
  return (2 * bytes * repeats) / Math.min(...seconds) / 1e9;
}

function signalToNoise(reference: readonly Float32Array[], got: readonly Float32Array[]): number {
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

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

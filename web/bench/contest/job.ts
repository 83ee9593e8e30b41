/** The job that mlc_controlnet/bench/operations/web_contest.py writes, and the outcome that it reads. */

/** A tensor in the case's file of values, in C order. */
export interface TensorEntry {
  readonly dtype: "float32" | "float16" | "int32" | "uint32";
  readonly shape: readonly number[];
  /** The position of its first byte in the file. */
  readonly byte_offset: number;
  readonly bytes: number;
}

/** One computation, which both contestants run on the same numbers. */
export interface Case {
  /** The name of the case and of its function in our library. */
  readonly name: string;
  readonly inputs: readonly TensorEntry[];
  readonly params: readonly TensorEntry[];
  /** The outputs that torch computes in float32. */
  readonly outputs: readonly TensorEntry[];
  /** Another function of our library, which takes the peer's place with params of its own; null: the peer itself. */
  readonly against: { readonly name: string; readonly params: readonly TensorEntry[] } | null;
  /** Names of files in the job's folder. */
  readonly values: string;
  readonly onnx: string;
}

export interface Job {
  readonly library: string;
  readonly cases: readonly Case[];
  /** The number of timed turns per contestant and case, without warming up. */
  readonly rounds: number;
  /** A turn repeats a call until the turn lasts about this long, because a GPU raises its clocks only under load. */
  readonly turn_ms: number;
  /** The signal-to-noise ratio that outputs must have. A peer below it gets a second try with fewer optimizations. */
  readonly least_db: number;
  /** Whether the GPU's own clock also times every pass, in addition to the host's clock. */
  readonly gpu_clock: boolean;
  /** The size of the copy that measures the memory's bandwidth. */
  readonly copy_bytes: number;
  /** The threads of each contestant on the processor; null: the contest is on a WebGPU adapter. */
  readonly threads: number | null;
}

export interface Timing {
  /** The time until the case can be called. The first case of ours includes the time to open our library. */
  readonly load_ms: number;
  /** The time of the first call, until its outputs are read. */
  readonly first_call_ms: number;
  /** For each round, the time per call until the device has finished. */
  readonly wall_ms: readonly number[];
  /** For each round, the sum of a call's passes on the GPU's clock. Empty without such a clock. */
  readonly gpu_ms: readonly number[];
  /** The number of calls in each turn. */
  readonly calls_a_turn: number;
}

export interface CaseOutcome {
  readonly name: string;
  readonly ours: Timing;
  readonly peer: Timing;
  /** The signal-to-noise ratio of the outputs against torch's, in dB, at most 200. */
  readonly ours_db: number;
  readonly peer_db: number;
  /** `all`, or `basic` if the peer is wrong with all. */
  readonly peer_optimizations: Optimizations;
}

export interface Adapter {
  readonly name: string;
  /** Whether it computes on the CPU. */
  readonly is_software: boolean;
  readonly has_float16: boolean;
}

export interface Outcome {
  readonly copy_gigabytes_per_second: number;
  readonly cases: readonly CaseOutcome[];
}

/** The level of onnxruntime's graph optimizations. */
export type Optimizations = "all" | "basic";

/** A device's own clock. */
export interface Clock {
  start(): void;
  /** The milliseconds of each pass since the start. */
  durations(): Promise<number[]>;
}

/** One of the two contestants. */
export interface Contestant {
  /** The clock of the device that it runs on, if that has one; known once a case is loaded. */
  readonly clock?: Clock;
  load(work: Case, values: Uint8Array<ArrayBuffer>, optimizations: Optimizations): Promise<LoadedCase>;
}

/** Both contestants on the device that they share. */
export interface Arena {
  readonly ours: Contestant;
  readonly peer: Contestant;
  /** The time to open our library. */
  readonly opened_ms: number;
  readonly copy_gigabytes_per_second: number;
  /** How long a turn waits before its first call, which then is not timed; 0: it does not wait, and all calls are timed. */
  readonly rest_ms: number;
}

/** What a contest needs of its host. */
export interface Host {
  readonly readFile: (name: string) => Promise<Uint8Array<ArrayBuffer>>;
  /** The URL of the peer's module. */
  readonly ortModule: string;
  readonly onProgress: (line: string) => void;
}

/** A case with its inputs and weights on the device. */
export interface LoadedCase {
  /** Queue one call, and free its outputs on the device. */
  call(): Promise<void>;
  /** Wait until the device has finished all calls. */
  finished(): Promise<void>;
  /** Call once more and read the outputs. */
  outputs(): Promise<Float32Array[]>;
  dispose(): Promise<void>;
}

/** View a tensor's bytes in the content of its file, without a copy. */
export function tensorBytes(values: Uint8Array<ArrayBuffer>, entry: TensorEntry): Uint8Array<ArrayBuffer> {
  return values.subarray(entry.byte_offset, entry.byte_offset + entry.bytes);
}

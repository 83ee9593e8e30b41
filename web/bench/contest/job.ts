/** What mlc_controlnet/bench/operations/webgpu_contest.py writes for a contest, and what it reads of the outcome. */

export interface TensorEntry {
  readonly dtype: "float32" | "float16" | "int32";
  readonly shape: readonly number[];
  /** Where it begins in the case's file of values, in C order. */
  readonly byte_offset: number;
  readonly bytes: number;
}

/** One computation, that both contestants do on the same numbers. */
export interface Case {
  /** The name of its function in our library. */
  readonly name: string;
  readonly inputs: readonly TensorEntry[];
  readonly params: readonly TensorEntry[];
  /** What torch computes in float32. */
  readonly outputs: readonly TensorEntry[];
  /** Files beside the job. */
  readonly values: string;
  readonly onnx: string;
}

export interface Job {
  readonly library: string;
  readonly cases: readonly Case[];
  /** Turns that each contestant takes at a case; those that warm it up are not counted. */
  readonly rounds: number;
  /** A turn repeats a call until it takes about this long: a GPU's clocks need work to rise. */
  readonly turn_ms: number;
  /** Signal to noise that outputs must have: a peer that misses it is tried again with fewer optimizations. */
  readonly least_db: number;
  /** Whether the GPU's own clock times every pass, beside the host's. */
  readonly gpu_clock: boolean;
  /** The size of the copy that measures the rate of memory. */
  readonly copy_bytes: number;
}

export interface Timing {
  /** Until the case can be called. Our library, fetched and its pipelines made, counts in the first case. */
  readonly load_ms: number;
  /** Of the first call, its outputs read. */
  readonly first_call_ms: number;
  /** A call in each round, until the device has done it. */
  readonly wall_ms: readonly number[];
  /** A call in each round, the sum of its passes; none where the job wants no clock. */
  readonly gpu_ms: readonly number[];
  readonly calls_a_turn: number;
}

export interface CaseOutcome {
  readonly name: string;
  readonly ours: Timing;
  readonly peer: Timing;
  /** How near outputs are to torch's: signal to noise in dB, at most 200. */
  readonly ours_db: number;
  readonly peer_db: number;
  /** `all`, or `basic` where the peer is wrong with all. */
  readonly peer_optimizations: Optimizations;
}

export interface Adapter {
  readonly name: string;
  /** It computes on the processor. */
  readonly is_software: boolean;
  readonly has_float16: boolean;
}

export interface Outcome {
  readonly adapter: Adapter;
  readonly copy_gigabytes_per_second: number;
  readonly cases: readonly CaseOutcome[];
}

/** Of onnxruntime's graph. */
export type Optimizations = "all" | "basic";

/** One of the two: it is loaded, called, and the device waited for. */
export interface Contestant {
  /** The device that does its work, once something is loaded. */
  readonly device: GPUDevice;
  load(work: Case, values: Uint8Array<ArrayBuffer>, optimizations: Optimizations): Promise<LoadedCase>;
}

export interface LoadedCase {
  /** Queue one call; its outputs stay on the device and are freed there. */
  call(): Promise<void>;
  finished(): Promise<void>;
  /** Call once more and read what comes out. */
  outputs(): Promise<Float32Array[]>;
  dispose(): Promise<void>;
}

export function tensorBytes(values: Uint8Array<ArrayBuffer>, entry: TensorEntry): Uint8Array<ArrayBuffer> {
  return values.subarray(entry.byte_offset, entry.byte_offset + entry.bytes);
}

/**
 * One step of a sampler as numbers, and the reader that executes it.
 *
 * Every sampler here is linear in the samples, the model outputs and the noise. With the sample x and the model output m
 * of row i:
 *
 *     m     = model(inputScale * x, timestep)
 *     x0    = x0Sample * x + x0Output * m
 *     d_i   = outputSample * x + outputModel * m
 *     y_i   = x, or for a corrector: sum correctedSamples[k] * y_{i-k} + sum correctedOutputs[k] * d_{i-k}
 *     x    <- sum nextSamples[k] * y_{i-k} + sum nextOutputs[k] * d_{i-k} + sum nextNoises[k] * z_{i-k}
 *
 * where z_i is the standard normal noise of row i. Twin: mlc_controlnet/runtime/samplers/row.py.
 */

import type { TrainingSchedule } from "./description.ts";

type Numbers = ArrayLike<number>;

/** One step: an entry of diffusers' `scheduler.timesteps`, and coefficients. Weights are by age, the newest first. */
export interface Row {
  readonly timestep: number;
  /** The model sees the sample times this. */
  readonly inputScale: number;
  /** Of the final latents as this step predicts them, for previews. */
  readonly x0Sample: number;
  readonly x0Output: number;
  /** Of the converted output that the history keeps. */
  readonly outputSample: number;
  readonly outputModel: number;
  /** Empty, or UniPC's corrector. The first is for age 1. */
  readonly correctedSamples: readonly number[];
  /** The first is for age 0. */
  readonly correctedOutputs: readonly number[];
  /** Of the next sample, from age 0. */
  readonly nextSamples: readonly number[];
  readonly nextOutputs: readonly number[];
  /** Empty: no noise is needed. */
  readonly nextNoises: readonly number[];
  /** The sample at the start of this row is signalScale * latents + noiseScale * noise, by diffusers' `add_noise`. */
  readonly signalScale: number;
  readonly noiseScale: number;
}

/** All steps of one sampler for one picture. */
export interface Schedule {
  /** x starts as standard normal noise times this if there is no picture to start from. */
  readonly initNoiseSigma: number;
  /** Empty if a strength leaves nothing to do. */
  readonly rows: readonly Row[];
}

/** What a sampler remembers between rows, the newest first: samples y, converted outputs d, noises z. */
export interface State {
  readonly samples: readonly Numbers[];
  readonly outputs: readonly Numbers[];
  readonly noises: readonly Numbers[];
}

/** The state before the first row. */
export const INITIAL_STATE: State = { samples: [], outputs: [], noises: [] };

/** What the formulas of a sampler start from. */
export interface Plan {
  /** Of the model's output. */
  readonly predictionType: string;
  /** The noise levels that the model was trained on. */
  readonly schedule: TrainingSchedule;
  /** One for each step, from the noisiest. A step of a second-order sampler takes two rows. */
  readonly timesteps: readonly number[];
  /** Float32 noise levels, one more than timesteps; empty for samplers that look up alphasCumprod instead. */
  readonly sigmas: Float32Array;
  /** The first step that is executed. */
  readonly begin: number;
  /** The number of steps that was asked for. */
  readonly steps: number;
  /** The share of fresh noise in DDIM and TCD. */
  readonly eta: number;
}

/** The Runge-Kutta start of PNDM looks back so far; everything else 4 rows or less. */
const MAX_AGE = 12;

/** What `advance` returns, float32. */
export interface Advanced {
  readonly x: Float32Array<ArrayBuffer>;
  readonly x0: Float32Array<ArrayBuffer>;
  readonly state: State;
}

/**
 * Take one step: return the next sample, x0 and the next state. Computes in float64 and stores float32.
 *
 * `drawNoise` returns the standard normal noise of this row; it is called only if the row needs it.
 */
export function advance(row: Row, state: State, x: Numbers, m: Numbers, drawNoise: () => Numbers): Advanced {
  const x0 = new Float32Array(x.length);
  const output = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) {
    x0[i] = row.x0Sample * x[i] + row.x0Output * m[i];
    output[i] = row.outputSample * x[i] + row.outputModel * m[i];
  }
  const outputs = [output, ...state.outputs];
  const corrected = (): Numbers =>
    combine(x.length, [row.correctedSamples, state.samples], [row.correctedOutputs, outputs]);
  const samples = [row.correctedOutputs.length ? corrected() : x, ...state.samples];
  const noises = row.nextNoises.length ? [drawNoise(), ...state.noises] : [];
  return {
    x: combine(x.length, [row.nextSamples, samples], [row.nextOutputs, outputs], [row.nextNoises, noises]),
    x0,
    state: {
      samples: samples.slice(0, MAX_AGE),
      outputs: outputs.slice(0, MAX_AGE),
      noises: noises.slice(0, MAX_AGE),
    },
  };
}

/** Return the weighted sum of histories, float32; an entry that a weight leaves out is not read. */
function combine(
  length: number,
  ...terms: readonly (readonly [weights: readonly number[], history: readonly Numbers[]])[]
): Float32Array<ArrayBuffer> {
  const total = new Float64Array(length);
  for (const [weights, history] of terms) {
    for (let age = 0; age < Math.min(weights.length, history.length); age++) {
      const weight = weights[age];
      const values = history[age];
      if (weight !== 0) for (let i = 0; i < length; i++) total[i] += weight * values[i];
    }
  }
  return new Float32Array(total);
}

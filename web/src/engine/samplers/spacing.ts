/**
 * The timesteps and noise levels of a number of steps, with diffusers' rounding.
 *
 * Noise levels are sigma = sqrt((1 - a) / a), a from alphasCumprod. Twin: mlc_controlnet/runtime/samplers/spacing.py.
 */

import { betaQuantile } from "./beta_quantile.ts";
import type { SamplerOptions, TrainingSchedule } from "./description.ts";

const KARRAS_RHO = 7; // arXiv 2206.00364, eq. 5
const SMALLEST_SIGMA = 1e-10;
export const TIMESTEP_SPACINGS: readonly string[] = ["leading", "linspace", "trailing"];
export const SIGMA_SPACINGS: readonly string[] = ["karras", "exponential", "beta"];

/** Return the noise level of every timestep: float32 [N], each operation rounded to float32 as in torch. */
export function modelSigmas(schedule: TrainingSchedule): Float32Array {
  return schedule.alphasCumprod.map((a) => Math.sqrt(Math.fround(Math.fround(1 - a) / a)));
}

/** Return `steps` whole timesteps, descending: DDIM's and its relatives' set_timesteps. */
export function wholeTimesteps(spacing: string, offset: number, trainSteps: number, steps: number): number[] {
  if (spacing === "linspace") {
    return linspace(0, trainSteps - 1, steps)
      .map(roundHalfToEven)
      .reverse();
  }
  return leadingOrTrailing(spacing, offset, trainSteps, steps);
}

/** Return `steps` timesteps, descending, not rounded if they are equidistant: k-diffusion's samplers. */
export function fractionalTimesteps(spacing: string, offset: number, trainSteps: number, steps: number): number[] {
  if (spacing === "linspace") {
    return linspace(0, trainSteps - 1, steps)
      .map(Math.fround)
      .reverse();
  }
  return leadingOrTrailing(spacing, offset, trainSteps, steps);
}

/** Return `steps` whole timesteps, descending, as DPM-Solver, UniPC and DEIS choose them: they leave 0 out. */
export function solverTimesteps(
  spacing: string,
  offset: number,
  trainSteps: number,
  steps: number,
  lastTimestep: number,
): number[] {
  if (spacing === "linspace") {
    return linspace(0, lastTimestep - 1, steps + 1)
      .map(roundHalfToEven)
      .reverse()
      .slice(0, -1);
  }
  if (spacing === "leading") {
    const ratio = Math.floor(lastTimestep / (steps + 1));
    return Array.from({ length: steps }, (_, i) => (steps - i) * ratio + offset);
  }
  return trailing(lastTimestep, trainSteps, steps);
}

/** Return `steps` of the timesteps that a consistency model was distilled on (LCM and TCD). */
export function consistencyTimesteps(originalSteps: number, trainSteps: number, steps: number): number[] {
  const ratio = Math.floor(trainSteps / originalSteps);
  const step = originalSteps / steps;
  return Array.from({ length: steps }, (_, i) => (originalSteps - Math.floor(i * step)) * ratio - 1);
}

/** Return `steps` noise levels from `first` down to `last`, or between the levels that the options set. */
export function spacedSigmas(options: SamplerOptions, first: number, last: number, steps: number): number[] {
  let largest = options.sigma_max || first;
  let smallest = options.sigma_min || last;
  if (options.sigma_spacing === "karras" && ["lms", "dpmpp_sde"].includes(options.method)) {
    [largest, smallest] = [first, last]; // these two do not read them
  }
  if (options.sigma_spacing === "karras") {
    const begin = largest ** (1 / KARRAS_RHO);
    const end = smallest ** (1 / KARRAS_RHO);
    return linspace(0, 1, steps).map((ramp) => (begin + ramp * (end - begin)) ** KARRAS_RHO);
  }
  if (options.sigma_spacing === "beta") {
    // arXiv 2407.12173
    return linspace(0, 1, steps).map((share) => smallest + betaQuantile(1 - share) * (largest - smallest));
  }
  return linspace(Math.log(largest), Math.log(smallest), steps).map(Math.exp);
}

/** Return the timestep with the noise level `sigma`: linear in its logarithm between whole timesteps. */
export function timestepOf(sigma: number, logSigmas: Float32Array): number {
  const logSigma = Math.log(Math.max(sigma, SMALLEST_SIGMA));
  let low = 0;
  while (low < logSigmas.length - 2 && logSigmas[low + 1] <= logSigma) low++;
  const start = logSigmas[low];
  const weight = Math.min(Math.max((start - logSigma) / (start - logSigmas[low + 1]), 0), 1);
  return (1 - weight) * low + weight * (low + 1);
}

/** Return the values at fractional timesteps, linear between whole ones; outside of the table, its ends. */
export function interpolate(timesteps: readonly number[], table: Float32Array): number[] {
  return timesteps.map((timestep) => {
    const t = Math.min(Math.max(timestep, 0), table.length - 1);
    const low = Math.floor(t);
    return t === low ? table[low] : table[low] + (table[low + 1] - table[low]) * (t - low);
  });
}

/** Return `count` equidistant numbers, both ends included. */
export function linspace(start: number, stop: number, count: number): number[] {
  const step = (stop - start) / (count - 1);
  return Array.from({ length: count }, (_, i) =>
    i > 0 && i === count - 1 ? stop : i === 0 ? start : i * step + start,
  );
}

/** Round halves to the even neighbour, as numpy does. */
export function roundHalfToEven(value: number): number {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

function leadingOrTrailing(spacing: string, offset: number, trainSteps: number, steps: number): number[] {
  if (spacing === "leading") {
    const ratio = Math.floor(trainSteps / steps);
    return Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + offset);
  }
  return trailing(trainSteps, trainSteps, steps);
}

/** numpy's arange(last, 0, -trainSteps / steps), rounded, minus 1: rounding may add an element. */
function trailing(last: number, trainSteps: number, steps: number): number[] {
  const ratio = trainSteps / steps;
  const delta = last - ratio - last;
  return Array.from({ length: Math.ceil(last / ratio) }, (_, i) => roundHalfToEven(last + i * delta) - 1);
}

/**
 * Samplers that look the noise level up by whole timesteps: DDIM, DDPM, LCM and TCD.
 *
 * Twin: mlc_controlnet/runtime/samplers/discrete.py.
 */

import type { SamplerOptions } from "./description.ts";
import { dataPrediction, noisePrediction, type Pair, weighted } from "./prediction.ts";
import type { Plan, Row } from "./row.ts";

const SIGMA_DATA = 0.5; // of the boundary condition of a consistency model (arXiv 2303.01469, appendix C)
const SMALLEST_VARIANCE = 1e-20;
const X: Pair = [1, 0];

/** The next sample and the weight of the noise, from the coefficients of x0 and eps at step i. */
type Following = (i: number, x0: Pair, eps: Pair) => readonly [next: Pair, noise: number];

/** DDIM: arXiv 2010.02502, eq. 12 and 16, with eta. */
export function ddimRows(plan: Plan, options: SamplerOptions): Row[] {
  const stride = Math.floor(plan.schedule.alphasCumprod.length / plan.steps);
  return makeRows(plan, options, (i, x0, eps) => {
    const a = signalShare(plan, plan.timesteps[i], options);
    const aNext = signalShare(plan, plan.timesteps[i] - stride, options);
    const deviation = plan.eta * (((1 - aNext) / (1 - a)) * (1 - a / aNext)) ** 0.5;
    return [weighted([aNext ** 0.5, x0], [(1 - aNext - deviation ** 2) ** 0.5, eps]), deviation];
  });
}

/** DDPM: arXiv 2006.11239, eq. 7, with the variances of section 3.2. */
export function ddpmRows(plan: Plan, options: SamplerOptions): Row[] {
  return makeRows(plan, options, (i, x0) => {
    const a = signalShare(plan, plan.timesteps[i], options);
    const isLast = i + 1 === plan.timesteps.length;
    const aNext = isLast ? 1 : signalShare(plan, plan.timesteps[i + 1], options);
    const [alpha, beta] = [a / aNext, 1 - a / aNext];
    const next = weighted([(aNext ** 0.5 * beta) / (1 - a), x0], [(alpha ** 0.5 * (1 - aNext)) / (1 - a), X]);
    if (plan.timesteps[i] === 0) return [next, 0];
    return [next, deviationOf(options.variance_type, ((1 - aNext) / (1 - a)) * beta, beta)];
  });
}

/** LCM: arXiv 2310.04378, multistep consistency sampling. */
export function lcmRows(plan: Plan, options: SamplerOptions): Row[] {
  const rows: Row[] = [];
  for (let i = plan.begin; i < plan.timesteps.length; i++) {
    const timestep = plan.timesteps[i];
    const a = signalShare(plan, timestep, options);
    const scaled = timestep * options.timestep_scaling;
    const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
    const out = scaled / (scaled ** 2 + SIGMA_DATA ** 2) ** 0.5;
    const x0 = dataPrediction(plan.predictionType, a ** 0.5, (1 - a) ** 0.5);
    const consistent = weighted([out, x0], [skip, X]);
    let [next, noise] = [consistent, 0];
    if (i !== plan.steps - 1) {
      const aNext = signalShare(plan, plan.timesteps[Math.min(i + 1, plan.timesteps.length - 1)], options);
      [next, noise] = [weighted([aNext ** 0.5, consistent]), (1 - aNext) ** 0.5];
    }
    rows.push(makeRow(timestep, a, consistent, next, noise));
  }
  return rows;
}

/** TCD: arXiv 2402.19159, algorithm 4; its gamma is eta here, as in diffusers. */
export function tcdRows(plan: Plan, options: SamplerOptions): Row[] {
  return makeRows(plan, options, (i, x0, eps) => {
    const isLast = i + 1 === plan.timesteps.length;
    const nextTimestep = isLast ? 0 : plan.timesteps[i + 1];
    const aNext = signalShare(plan, nextTimestep, options);
    // In float32, as diffusers does: 0.7 * 10 is 7 there.
    const s = Math.floor(Math.fround(Math.fround(1 - plan.eta) * nextTimestep));
    const aS = signalShare(plan, s, options);
    const atS = weighted([aS ** 0.5, x0], [(1 - aS) ** 0.5, eps]);
    if (plan.eta === 0 || i === plan.steps - 1) return [atS, 0];
    return [weighted([(aNext / aS) ** 0.5, atS]), (1 - aNext / aS) ** 0.5];
  });
}

/** Return alphasCumprod at a timestep; before timestep 0, what is left after the last step; NaN after the end. */
export function signalShare(plan: Plan, timestep: number, options: SamplerOptions): number {
  if (timestep < 0) return options.final_alpha_cumprod;
  return plan.schedule.alphasCumprod[Math.trunc(timestep)] ?? Number.NaN;
}

/** Make rows of a sampler without memory. */
function makeRows(plan: Plan, options: SamplerOptions, following: Following): Row[] {
  const rows: Row[] = [];
  for (let i = plan.begin; i < plan.timesteps.length; i++) {
    const a = signalShare(plan, plan.timesteps[i], options);
    const x0 = dataPrediction(plan.predictionType, a ** 0.5, (1 - a) ** 0.5);
    const eps = noisePrediction(plan.predictionType, a ** 0.5, (1 - a) ** 0.5);
    rows.push(makeRow(plan.timesteps[i], a, x0, ...following(i, x0, eps)));
  }
  return rows;
}

function makeRow(timestep: number, a: number, x0: Pair, next: Pair, noise: number): Row {
  return {
    timestep,
    inputScale: 1,
    x0Sample: x0[0],
    x0Output: x0[1],
    outputSample: 0,
    outputModel: 1,
    correctedSamples: [],
    correctedOutputs: [],
    nextSamples: [next[0]],
    nextOutputs: [next[1]],
    nextNoises: noise !== 0 ? [noise] : [],
    signalScale: a ** 0.5,
    noiseScale: (1 - a) ** 0.5,
  };
}

/** Return the standard deviation of DDPM's noise from its smallest and its largest variance. */
function deviationOf(varianceType: string, small: number, large: number): number {
  if (varianceType === "fixed_large") return large ** 0.5;
  if (varianceType === "fixed_large_log") return Math.log(large) ** 0.5; // not a number, as in diffusers
  return Math.max(small, SMALLEST_VARIANCE) ** 0.5;
}

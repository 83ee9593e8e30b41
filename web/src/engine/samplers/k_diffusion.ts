/**
 * Samplers of k-diffusion, whose sample is x0 + sigma * noise: Euler, Heun, LMS, DPM2, their ancestral kin, DPM++ SDE.
 *
 * The equation is dx / dsigma = (x - x0) / sigma (arXiv 2206.00364, eq. 4).
 * Twin: mlc_controlnet/runtime/samplers/k_diffusion.py.
 */

import { denoised, derivative, type Pair, weighted } from "./prediction.ts";
import type { Plan, Row } from "./row.ts";
import { timestepOf } from "./spacing.ts";

const LMS_ORDER = 4;
const X: Pair = [1, 0];

/** Euler: arXiv 2206.00364, algorithm 2 without churn. */
export function eulerRows(plan: Plan): Row[] {
  return steps(plan).map((i) => {
    const [sigma, sigmaNext] = [plan.sigmas[i], plan.sigmas[i + 1]];
    const next = weighted([1, X], [sigmaNext - sigma, derivative(plan.predictionType, sigma)]);
    return makeRow(plan, plan.timesteps[i], sigma, sigma, [next[0]], [next[1]]);
  });
}

/** Euler ancestral: a step to a lower noise level, and fresh noise. */
export function eulerAncestralRows(plan: Plan): Row[] {
  return steps(plan).map((i) => {
    const sigma = plan.sigmas[i];
    const [down, up] = ancestral(sigma, plan.sigmas[i + 1]);
    const next = weighted([1, X], [down - sigma, derivative(plan.predictionType, sigma)]);
    return makeRow(plan, plan.timesteps[i], sigma, sigma, [next[0]], [next[1]], noiseOf(up));
  });
}

/** Linear multistep of order 4. As in diffusers, a picture that starts later lacks the first rows' derivatives. */
export function lmsRows(plan: Plan): Row[] {
  return steps(plan).map((i) => {
    const sigma = plan.sigmas[i];
    const ages = Array.from({ length: Math.min(i + 1, LMS_ORDER) }, (_, age) => age);
    const known = ages.map((age) => plan.sigmas[i - age]);
    const weights = ages.map((age) => lagrangeIntegral(known, age, sigma, plan.sigmas[i + 1]));
    const d = derivative(plan.predictionType, sigma);
    return makeRow(plan, plan.timesteps[i], sigma, sigma, [1], weights.slice(0, i + 1 - plan.begin), [], d);
  });
}

/** Heun: an Euler step, then again with the mean of the derivatives at its ends (arXiv 2206.00364, algorithm 1). */
export function heunRows(plan: Plan): Row[] {
  return steps(plan).flatMap((i) => {
    const [sigma, sigmaNext] = [plan.sigmas[i], plan.sigmas[i + 1]];
    const dt = sigmaNext - sigma;
    const d = derivative(plan.predictionType, sigma);
    const first = makeRow(plan, plan.timesteps[i], sigma, sigma, [1], [dt], [], d);
    if (i + 1 === plan.timesteps.length) return [first];
    const dNext = derivative(plan.predictionType, sigmaNext);
    const outputs = [dt / 2, dt / 2];
    return [first, makeRow(plan, plan.timesteps[i + 1], sigmaNext, sigmaNext, [0, 1], outputs, [], dNext)];
  });
}

/** DPM-Solver-2: the midpoint method in log(sigma) (arXiv 2206.00927, algorithm 1). */
export function dpm2Rows(plan: Plan): Row[] {
  return steps(plan).flatMap((i) => {
    const [sigma, sigmaNext] = [plan.sigmas[i], plan.sigmas[i + 1]];
    return midpointRows(plan, i, (sigma * sigmaNext) ** 0.5, sigmaNext, 0);
  });
}

/** DPM-Solver-2 with ancestral noise. */
export function dpm2AncestralRows(plan: Plan): Row[] {
  return steps(plan).flatMap((i) => {
    const sigma = plan.sigmas[i];
    const [down, up] = ancestral(sigma, plan.sigmas[i + 1]);
    const isLast = i + 1 === plan.timesteps.length;
    return midpointRows(plan, i, isLast ? 0 : (sigma * down) ** 0.5, down, up);
  });
}

/**
 * DPM-Solver++ SDE: two ancestral steps, to the midpoint and from the start again with the midpoint's x0.
 *
 * diffusers draws both noises as increments of one Brownian motion over sigma. The second one contains the first.
 */
export function dpmppSdeRows(plan: Plan): Row[] {
  return steps(plan).flatMap((i) => {
    const [sigma, sigmaNext] = [plan.sigmas[i], plan.sigmas[i + 1]];
    const timestep = plan.timesteps[i];
    const x0 = denoised(plan.predictionType, sigma);
    if (sigmaNext === 0) return [makeRow(plan, timestep, sigma, sigma, [0], [1], [], x0)];
    const middle = (sigma * sigmaNext) ** 0.5;
    const [downMiddle, upMiddle] = ancestral(sigma, middle);
    const toMiddle = downMiddle / sigma;
    const first = makeRow(plan, timestep, sigma, sigma, [toMiddle], [1 - toMiddle], noiseOf(upMiddle), x0);
    const [down, up] = ancestral(sigma, sigmaNext);
    const share = (middle - sigmaNext) / (sigma - sigmaNext); // of the second half in the Brownian motion's variance
    const noises = [up * share ** 0.5, up * (1 - share) ** 0.5];
    const middleTimestep = timestepOf(middle, plan.schedule.logSigmas);
    const middleX0 = denoised(plan.predictionType, middle);
    const [samples, outputs] = [[0, down / sigma], [1 - down / sigma]];
    return [first, makeRow(plan, middleTimestep, middle, sigmaNext, samples, outputs, noises, middleX0)];
  });
}

/** Step to the noise level `middle`, then from the start to `target` with the derivative there. */
function midpointRows(plan: Plan, i: number, middle: number, target: number, up: number): Row[] {
  const sigma = plan.sigmas[i];
  const d = derivative(plan.predictionType, sigma);
  const first = makeRow(plan, plan.timesteps[i], sigma, sigma, [1], [middle - sigma], [], d);
  if (i + 1 === plan.timesteps.length) return [first];
  const timestep = timestepOf(middle, plan.schedule.logSigmas);
  const dMiddle = derivative(plan.predictionType, middle);
  const outputs = [target - sigma];
  return [first, makeRow(plan, timestep, middle, plan.sigmas[i + 1], [0, 1], outputs, noiseOf(up), dMiddle)];
}

/** Return the lower noise level that the deterministic part goes to, and the noise that restores `sigmaNext`. */
function ancestral(sigma: number, sigmaNext: number): readonly [down: number, up: number] {
  return [sigmaNext ** 2 / sigma, sigmaNext * (1 - (sigmaNext / sigma) ** 2) ** 0.5];
}

function noiseOf(weight: number): number[] {
  return weight !== 0 ? [weight] : [];
}

/** Integrate the polynomial that is 1 at node `own` and 0 at the others, exactly up to degree 3 (Gauss-Legendre). */
function lagrangeIntegral(nodes: readonly number[], own: number, begin: number, end: number): number {
  const center = (begin + end) / 2;
  const half = (end - begin) / 2;
  let total = 0;
  for (const point of [center - half / 3 ** 0.5, center + half / 3 ** 0.5]) {
    let value = 1;
    nodes.forEach((node, k) => {
      if (k !== own) value *= (point - node) / (nodes[own] - node);
    });
    total += half * value;
  }
  return total;
}

/** The indices of the steps that are executed. */
function steps(plan: Plan): number[] {
  return Array.from({ length: plan.timesteps.length - plan.begin }, (_, i) => plan.begin + i);
}

/** Make a row whose model input has the noise level `sigma`; `noisedAs` is diffusers' level in `add_noise`. */
function makeRow(
  plan: Plan,
  timestep: number,
  sigma: number,
  noisedAs: number,
  samples: readonly number[],
  outputs: readonly number[],
  noises: readonly number[] = [],
  output: Pair = [0, 1],
): Row {
  const [x0Sample, x0Output] = denoised(plan.predictionType, sigma);
  return {
    timestep,
    inputScale: 1 / (sigma ** 2 + 1) ** 0.5,
    x0Sample,
    x0Output,
    outputSample: output[0],
    outputModel: output[1],
    correctedSamples: [],
    correctedOutputs: [],
    nextSamples: samples,
    nextOutputs: outputs,
    nextNoises: noises,
    signalScale: 1,
    noiseScale: noisedAs,
  };
}

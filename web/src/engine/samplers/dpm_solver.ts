/**
 * DPM-Solver and DPM-Solver++ (arXiv 2206.00927, 2211.01095), multistep and single-step, with their SDEs; DEIS.
 *
 * Twin: mlc_controlnet/runtime/samplers/dpm_solver.py.
 */

import type { SamplerOptions } from "./description.ts";
import { dataPrediction, noisePrediction, signalAndNoise } from "./prediction.ts";
import type { Plan, Row } from "./row.ts";

const FEW_STEPS = 15; // diffusers lowers the order of the last steps below this number
const DATA_ALGORITHMS = ["dpmsolver++", "sde-dpmsolver++"];

/** The factors of the sample, of the estimates of x0 or noise and of its derivatives, and of fresh noise. */
interface Weights {
  readonly sample: number;
  readonly d0: number;
  readonly d1: number;
  readonly d2: number;
  readonly noise: number;
}

/** DPM-Solver(++) multistep of order 1 to 3. */
export function multistepRows(plan: Plan, options: SamplerOptions): Row[] {
  const rows: Row[] = [];
  const count = plan.timesteps.length;
  const isShort = options.lower_order_final && count < FEW_STEPS;
  for (let i = plan.begin; i < count; i++) {
    let order = Math.min(options.solver_order, i - plan.begin + 1);
    if (i === count - 1 && (options.euler_at_final || isShort || options.final_sigmas_type === "zero")) order = 1;
    else if (i === count - 2 && isShort) order = Math.min(order, 2);
    const weights = solverWeights(options, plan.sigmas[i], plan.sigmas[i + 1], order);
    const outputs = multistepOutputs(weights, logSnrs(plan, i, order));
    rows.push(makeRow(plan, options, i, [weights.sample], outputs, weights.noise));
  }
  return rows;
}

/** DPM-Solver(++) single-step of order 1 to 3: steps of growing order from one sample. */
export function singlestepRows(plan: Plan, options: SamplerOptions): Row[] {
  const rows: Row[] = [];
  const orders = singlestepOrders(options, plan.timesteps.length);
  let start = plan.begin;
  for (let i = plan.begin; i < plan.timesteps.length; i++) {
    const order = Math.min(orders[i], i - plan.begin + 1);
    if (order === 1) start = i;
    const weights = solverWeights(options, plan.sigmas[i + 1 - order], plan.sigmas[i + 1], order);
    const outputs = singlestepOutputs(weights, logSnrs(plan, i, order), options.solver_type);
    const samples = [...new Array<number>(i - start).fill(0), weights.sample];
    rows.push(makeRow(plan, options, i, samples, outputs, weights.noise));
  }
  return rows;
}

/** Return the order of every row; the last ones are lower if the option says so or diffusers must. */
export function singlestepOrders(options: SamplerOptions, steps: number): number[] {
  const order = options.solver_order;
  const isLowered = options.lower_order_final || steps % order !== 0 || options.final_sigmas_type === "zero";
  const repeat = (group: readonly number[], times: number) => Array.from({ length: times }, () => group).flat();
  let orders: number[];
  if (order === 1) {
    orders = repeat([1], steps);
  } else if (order === 2) {
    orders = isLowered
      ? [...repeat([1, 2], Math.floor((steps - 1) / 2)), ...repeat([1], 1 + ((steps - 1) % 2))]
      : repeat([1, 2], steps / 2);
  } else if (isLowered) {
    const end = [[1, 2, 1], [1], [1, 2]][steps % 3];
    orders = [...repeat([1, 2, 3], Math.floor((steps - end.length) / 3)), ...end];
  } else {
    orders = repeat([1, 2, 3], steps / 3);
  }
  if (options.final_sigmas_type === "zero") orders[orders.length - 1] = 1;
  return orders;
}

/** DEIS: arXiv 2204.13902, exponential multistep with polynomials in log(rho), of order 1 to 3. */
export function deisRows(plan: Plan, options: SamplerOptions): Row[] {
  const rows: Row[] = [];
  const count = plan.timesteps.length;
  for (let i = plan.begin; i < count; i++) {
    let order = Math.min(options.solver_order, i - plan.begin + 1);
    if (options.lower_order_final && count < FEW_STEPS) order = Math.min(order, count - i);
    const [alphaNext, sigmaNext] = signalAndNoise(plan.sigmas[i + 1]);
    const [alpha] = signalAndNoise(plan.sigmas[i]);
    const logEnd = -logSnr(plan.sigmas[i + 1]);
    const known = Array.from({ length: order }, (_, age) => -logSnr(plan.sigmas[i - age]));
    const outputs =
      order === 1
        ? [-sigmaNext * Math.expm1(known[0] - logEnd)]
        : known.map((_, own) => alphaNext * logRhoIntegral(known, own, logEnd));
    rows.push(makeRow(plan, options, i, [alphaNext / alpha], outputs, 0));
  }
  return rows;
}

/** Return the weights of one step (arXiv 2211.01095, eq. 8, 9 and appendix A); order 2 reads `solver_type`. */
function solverWeights(options: SamplerOptions, sigmaStart: number, sigmaEnd: number, order: number): Weights {
  const [alpha, sigma] = signalAndNoise(sigmaEnd);
  const [alphaS, sigmaS] = signalAndNoise(sigmaStart);
  const h = logSnr(sigmaEnd) - logSnr(sigmaStart);
  const isMidpoint = order === 2 && options.solver_type === "midpoint";
  if (options.algorithm_type === "dpmsolver++") {
    const e = Math.expm1(-h);
    const d1 = isMidpoint ? -0.5 * alpha * e : alpha * (e / h + 1);
    return { sample: sigma / sigmaS, d0: -alpha * e, d1, d2: -alpha * ((e + h) / h ** 2 - 0.5), noise: 0 };
  }
  if (options.algorithm_type === "dpmsolver") {
    const e = Math.expm1(h);
    const d1 = isMidpoint ? -0.5 * sigma * e : -sigma * (e / h - 1);
    return { sample: alpha / alphaS, d0: -sigma * e, d1, d2: -sigma * ((e - h) / h ** 2 - 0.5), noise: 0 };
  }
  if (options.algorithm_type === "sde-dpmsolver++") {
    const e = -Math.expm1(-2 * h);
    const d1 = isMidpoint ? 0.5 * alpha * e : alpha * (e / (-2 * h) + 1);
    const d2 = alpha * ((e - 2 * h) / (2 * h) ** 2 - 0.5);
    return { sample: (sigma / sigmaS) * Math.exp(-h), d0: alpha * e, d1, d2, noise: sigma * e ** 0.5 };
  }
  const e = Math.expm1(h);
  const d1 = isMidpoint ? -sigma * e : -2 * sigma * (e / h - 1);
  const noise = sigma * Math.expm1(2 * h) ** 0.5;
  return { sample: alpha / alphaS, d0: -2 * sigma * e, d1, d2: Number.NaN, noise };
}

/** Distribute the weights of the derivatives to the outputs, the newest first. */
function multistepOutputs({ d0, d1, d2 }: Weights, lambdas: readonly number[]): number[] {
  if (lambdas.length === 2) return [d0];
  const h = lambdas[0] - lambdas[1];
  const r0 = (lambdas[1] - lambdas[2]) / h;
  if (lambdas.length === 3) return [d0 + d1 / r0, -d1 / r0];
  const r1 = (lambdas[2] - lambdas[3]) / h;
  const newer = d1 * (1 + r0 / (r0 + r1)) + d2 / (r0 + r1); // the weight of (m0 - m1) / r0
  const older = -(d1 * r0 + d2) / (r0 + r1); // the weight of (m1 - m2) / r1
  return [d0 + newer / r0, older / r1 - newer / r0, -older / r1];
}

/** Distribute the weights of the derivatives to the outputs, the newest first; they are taken at the oldest one. */
function singlestepOutputs({ d0, d1, d2 }: Weights, lambdas: readonly number[], solverType: string): number[] {
  if (lambdas.length === 2) return [d0];
  const start = lambdas[lambdas.length - 1];
  const h = lambdas[0] - start;
  const r0 = (lambdas[1] - start) / h;
  if (lambdas.length === 3) return [d1 / r0, d0 - d1 / r0];
  const r1 = (lambdas[2] - start) / h;
  const isMidpoint = solverType === "midpoint";
  const newest = isMidpoint ? d1 / r0 : (2 * d2 - d1 * r1) / (r0 - r1) / r0;
  const middle = isMidpoint ? 0 : (d1 * r0 - 2 * d2) / (r0 - r1) / r1;
  return [newest, middle, d0 - newest - middle];
}

/** Integrate the polynomial in log(rho) that is 1 at `own` and 0 at the other nodes over rho, from node 0. */
function logRhoIntegral(logRhos: readonly number[], own: number, logEnd: number): number {
  const others = logRhos.filter((_, k) => k !== own);
  const divisor = others.reduce((product, node) => product * (logRhos[own] - node), 1);
  const antiderivative = (u: number): number => {
    // Of (u - a) or (u - a)(u - b) times exp(u).
    if (others.length === 1) return Math.exp(u) * (u - others[0] - 1);
    return Math.exp(u) * ((u - others[0]) * (u - others[1]) - (2 * u - others[0] - others[1]) + 2);
  };
  return (antiderivative(logEnd) - antiderivative(logRhos[0])) / divisor;
}

/** Return lambda = log(alpha / sigma) of the noise level. */
function logSnr(sigma: number): number {
  return -Math.log(sigma);
}

/** Return lambda after step i, at its start and before it. */
function logSnrs(plan: Plan, i: number, order: number): number[] {
  return Array.from({ length: order + 1 }, (_, k) => logSnr(plan.sigmas[i + 1 - k]));
}

function makeRow(
  plan: Plan,
  options: SamplerOptions,
  i: number,
  samples: readonly number[],
  outputs: readonly number[],
  noise: number,
): Row {
  const [alpha, sigma] = signalAndNoise(plan.sigmas[i]);
  const [x0Sample, x0Output] = dataPrediction(plan.predictionType, alpha, sigma);
  const keepsData = options.method !== "deis" && DATA_ALGORITHMS.includes(options.algorithm_type);
  const d = keepsData ? [x0Sample, x0Output] : noisePrediction(plan.predictionType, alpha, sigma);
  return {
    timestep: plan.timesteps[i],
    inputScale: 1,
    x0Sample,
    x0Output,
    outputSample: d[0],
    outputModel: d[1],
    correctedSamples: [],
    correctedOutputs: [],
    nextSamples: samples,
    nextOutputs: outputs,
    nextNoises: noise !== 0 ? [noise] : [],
    signalScale: alpha,
    noiseScale: sigma,
  };
}

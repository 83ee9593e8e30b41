/**
 * UniPC: arXiv 2302.04867, a multistep predictor and a corrector that uses the next step's model output.
 *
 * Twin: mlc_controlnet/runtime/samplers/unipc.py.
 */

import type { SamplerOptions } from "./description.ts";
import { dataPrediction, noisePrediction, signalAndNoise } from "./prediction.ts";
import type { Plan, Row } from "./row.ts";

/** One step between two noise levels as predictor and corrector share it (section 3.1 and algorithms 5 to 8). */
interface Step {
  /** The weight of the sample at the start. */
  readonly sample: number;
  /** The weight of the output at the start, m0. */
  readonly output: number;
  /** The weight of the sum of rho_k * (m_k - m0) / r_k. */
  readonly correction: number;
  /** r_k of the outputs before m0, and 1 for the one at the end. */
  readonly ratios: readonly number[];
  /** The right-hand sides of the equations for rho_k. */
  readonly targets: readonly number[];
}

/** Make the rows: each corrects its sample by the step that led to it, and then predicts the next one. */
export function unipcRows(plan: Plan, options: SamplerOptions): Row[] {
  const rows: Row[] = [];
  const count = plan.timesteps.length;
  let order = 0;
  for (let i = plan.begin; i < count; i++) {
    const isCorrected = i > plan.begin && !options.disable_corrector.includes(i - 1);
    const before = isCorrected ? makeStep(plan, options, i - 1, order) : null;
    const remaining = options.lower_order_final ? count - i : options.solver_order;
    order = Math.min(options.solver_order, remaining, i - plan.begin + 1);
    rows.push(makeRow(plan, options, i, before, makeStep(plan, options, i, order)));
  }
  return rows;
}

/** Solve a small system of linear equations by elimination with pivots. */
export function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]]);
  const size = right.length;
  for (let k = 0; k < size; k++) {
    let pivot = k;
    for (let i = k + 1; i < size; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = 0; i < size; i++) {
      if (i === k) continue;
      const factor = rows[i][k] / rows[k][k];
      rows[i] = rows[i].map((value, j) => value - factor * rows[k][j]);
    }
  }
  return rows.map((row, k) => row[size] / row[k]);
}

/** Describe the step from noise level i to the next one. */
function makeStep(plan: Plan, options: SamplerOptions, i: number, order: number): Step {
  const [alpha, sigma] = signalAndNoise(plan.sigmas[i + 1]);
  const [alphaS, sigmaS] = signalAndNoise(plan.sigmas[i]);
  const h = logSnr(plan, i + 1) - logSnr(plan, i);
  const ratios = Array.from({ length: order - 1 }, (_, k) => (logSnr(plan, i - k - 1) - logSnr(plan, i)) / h);
  const hh = options.predict_x0 ? -h : h;
  const phi1 = Math.expm1(hh);
  const bH = options.solver_type === "bh1" ? hh : phi1;
  const targets: number[] = [];
  let phi = phi1 / hh - 1;
  let factorial = 1;
  for (let k = 1; k <= order; k++) {
    targets.push((phi * factorial) / bH);
    factorial *= k + 1;
    phi = phi / hh - 1 / factorial;
  }
  const level = options.predict_x0 ? alpha : sigma;
  const sample = options.predict_x0 ? sigma / sigmaS : alpha / alphaS;
  return { sample, output: -level * phi1, correction: -level * bH, ratios: [...ratios, 1], targets };
}

/** Return the weights of the outputs from age 0. */
function predictor(step: Step): number[] {
  const ratios = step.ratios.slice(0, -1);
  const rhos = ratios.length === 1 ? [0.5] : rhosOf(ratios, step.targets.slice(0, -1));
  return distribute(step, ratios, rhos);
}

/** Return the weights of the outputs from age 0: the output at the step's end, then those that led to it. */
function corrector(step: Step): number[] {
  const rhos = step.ratios.length === 1 ? [0.5] : rhosOf(step.ratios, step.targets);
  const newest = step.correction * rhos[rhos.length - 1];
  const [atStart, ...older] = distribute(step, step.ratios.slice(0, -1), rhos.slice(0, -1));
  return [newest, atStart - newest, ...older];
}

function rhosOf(ratios: readonly number[], targets: readonly number[]): number[] {
  return solve(
    ratios.map((_, k) => ratios.map((ratio) => ratio ** k)),
    targets,
  );
}

/** Return the weights of m0 and of the outputs before it. */
function distribute(step: Step, ratios: readonly number[], rhos: readonly number[]): number[] {
  const older = ratios.map((ratio, k) => (step.correction * rhos[k]) / ratio);
  return [step.output - older.reduce((sum, weight) => sum + weight, 0), ...older];
}

function logSnr(plan: Plan, i: number): number {
  return -Math.log(plan.sigmas[i]);
}

/** `before`: the step that led to row i, if the row corrects it. */
function makeRow(plan: Plan, options: SamplerOptions, i: number, before: Step | null, step: Step): Row {
  const [alpha, sigma] = signalAndNoise(plan.sigmas[i]);
  const [x0Sample, x0Output] = dataPrediction(plan.predictionType, alpha, sigma);
  const d = options.predict_x0 ? [x0Sample, x0Output] : noisePrediction(plan.predictionType, alpha, sigma);
  return {
    timestep: plan.timesteps[i],
    inputScale: 1,
    x0Sample,
    x0Output,
    outputSample: d[0],
    outputModel: d[1],
    correctedSamples: before ? [before.sample] : [],
    correctedOutputs: before ? corrector(before) : [],
    nextSamples: [step.sample],
    nextOutputs: predictor(step),
    nextNoises: [],
    signalScale: alpha,
    noiseScale: sigma,
  };
}

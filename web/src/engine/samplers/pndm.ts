/**
 * PNDM: arXiv 2202.09778, with or without its Runge-Kutta start.
 *
 * Twin: mlc_controlnet/runtime/samplers/pndm.py.
 */

import type { SamplerOptions } from "./description.ts";
import { signalShare } from "./discrete.ts";
import { dataPrediction } from "./prediction.ts";
import type { Plan, Row } from "./row.ts";

export const RUNGE_KUTTA_STEPS = 4; // the last timesteps that its start uses
const RUNGE_KUTTA_ROWS = 12; // three steps of four evaluations
// Adams-Bashforth, the newest first, by the number of outputs that are known (arXiv 2202.09778, eq. 12).
const MULTISTEP = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];
const RUNGE_KUTTA = [1 / 6, 1 / 3, 1 / 3, 1 / 6];

/**
 * Return the timesteps of the rows: the second is evaluated twice, or the first three become twelve rows.
 *
 * timesteps: whole, descending, at least `RUNGE_KUTTA_STEPS` for the Runge-Kutta start.
 */
export function pndmTimesteps(
  timesteps: readonly number[],
  trainSteps: number,
  steps: number,
  skipPrkSteps: boolean,
): number[] {
  if (skipPrkSteps) return [...timesteps.slice(0, 2), ...timesteps.slice(1)];
  const half = Math.floor(Math.floor(trainSteps / steps) / 2);
  const doubled = timesteps
    .slice(0, RUNGE_KUTTA_STEPS)
    .reverse()
    .flatMap((t) => [t, t + half]);
  const quadrupled = doubled.slice(0, -1).flatMap((t) => [t, t]);
  return [...quadrupled.slice(1, -1).reverse(), ...timesteps.slice(3)];
}

/** Make the rows. As in diffusers, a picture that starts later begins with the formulas of the first rows. */
export function pndmRows(plan: Plan, options: SamplerOptions): Row[] {
  const stride = Math.floor(plan.schedule.alphasCumprod.length / plan.steps);
  const rungeKutta = options.skip_prk_steps ? 0 : RUNGE_KUTTA_ROWS;
  let kept: number[] = []; // the rows whose outputs the multistep formula uses
  return plan.timesteps.slice(plan.begin).map((timestep, i) => {
    if (i < rungeKutta) {
      const stage = i % 4;
      if (stage === 0) kept.push(i);
      const weights = stage === 3 ? RUNGE_KUTTA : [1];
      const target = timestep - (stage % 2 ? 0 : Math.floor(stride / 2));
      return makeRow(plan, options, timestep, plan.timesteps[i - stage], target, stage, weights);
    }
    if (options.skip_prk_steps && i === 1) {
      return makeRow(plan, options, timestep, timestep + stride, timestep, 1, [1 / 2, 1 / 2]); // the first step again
    }
    kept = [...kept.slice(-3), i];
    const weights = new Array<number>(i - kept[0] + 1).fill(0);
    kept.forEach((row, k) => {
      weights[i - row] = MULTISTEP[kept.length - 1][kept.length - 1 - k];
    });
    return makeRow(plan, options, timestep, timestep, timestep - stride, 0, weights);
  });
}

/** Step from `start` to `target` (eq. 11), with the sample of `age` rows ago and the weighted outputs. */
function makeRow(
  plan: Plan,
  options: SamplerOptions,
  timestep: number,
  start: number,
  target: number,
  age: number,
  weights: readonly number[],
): Row {
  const [a, aStart, aTarget] = [timestep, start, target].map((t) => signalShare(plan, t, options));
  const denominator = aStart * (1 - aTarget) ** 0.5 + (aStart * (1 - aStart) * aTarget) ** 0.5;
  const ofEps = -(aTarget - aStart) / denominator;
  let [ofSample, ofOutput] = [(aTarget / aStart) ** 0.5, ofEps];
  if (plan.predictionType === "v_prediction") {
    [ofSample, ofOutput] = [ofSample + ofEps * (1 - aStart) ** 0.5, ofEps * aStart ** 0.5];
  }
  const [x0Sample, x0Output] = dataPrediction(plan.predictionType, a ** 0.5, (1 - a) ** 0.5);
  return {
    timestep,
    inputScale: 1,
    x0Sample,
    x0Output,
    outputSample: 0,
    outputModel: 1,
    correctedSamples: [],
    correctedOutputs: [],
    nextSamples: [...new Array<number>(age).fill(0), ofSample],
    nextOutputs: weights.map((weight) => ofOutput * weight),
    nextNoises: [],
    signalScale: a ** 0.5,
    noiseScale: (1 - a) ** 0.5,
  };
}

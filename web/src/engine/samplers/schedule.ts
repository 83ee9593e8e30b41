/**
 * From a bundle's description, a sampler's name and a number of steps to the rows of a schedule.
 *
 * Twin: mlc_controlnet/runtime/samplers/schedule.py.
 */

import { UserError } from "../errors.ts";
import type { SamplerDescriptions, SamplerOptions, TrainingSchedule } from "./description.ts";
import { ddimRows, ddpmRows, lcmRows, tcdRows } from "./discrete.ts";
import { deisRows, multistepRows, singlestepRows } from "./dpm_solver.ts";
import {
  dpm2AncestralRows,
  dpm2Rows,
  dpmppSdeRows,
  eulerAncestralRows,
  eulerRows,
  heunRows,
  lmsRows,
} from "./k_diffusion.ts";
import { pndmRows, pndmTimesteps, RUNGE_KUTTA_STEPS } from "./pndm.ts";
import type { Plan, Row, Schedule } from "./row.ts";
import {
  consistencyTimesteps,
  fractionalTimesteps,
  interpolate,
  linspace,
  modelSigmas,
  roundHalfToEven,
  SIGMA_SPACINGS,
  solverTimesteps,
  spacedSigmas,
  TIMESTEP_SPACINGS,
  timestepOf,
  wholeTimesteps,
} from "./spacing.ts";
import { unipcRows } from "./unipc.ts";

export const SCHEDULE_TYPES = [...TIMESTEP_SPACINGS, ...SIGMA_SPACINGS];
const STEPS = "num inference steps";

/** The properties of a family of diffusers' scheduler classes. */
interface Method {
  readonly rows: (plan: Plan, options: SamplerOptions) => Row[];
  /**
   * How the noise level is chosen: `whole` timesteps, those of a `distilled` model, `sigmas` between the chosen
   * timesteps (k-diffusion) or between all timesteps (`solver`).
   */
  readonly space: "whole" | "distilled" | "sigmas" | "solver";
  /** Which of SCHEDULE_TYPES the class knows. */
  readonly scheduleTypes: readonly string[];
  /** `timesteps`, `sigmas` or both, if the class' set_timesteps takes them. */
  readonly takes: readonly string[];
  /** The kinds of model output that the class knows. */
  readonly predictions: readonly string[];
}

const ALL = ["epsilon", "v_prediction", "sample"];
const NO_X0 = ["epsilon", "v_prediction"];
const BOTH = ["timesteps", "sigmas"];
const ONE = ["timesteps"];

function method(
  rows: Method["rows"],
  space: Method["space"],
  scheduleTypes: readonly string[] = SCHEDULE_TYPES,
  takes: readonly string[] = [],
  predictions: readonly string[] = ALL,
): Method {
  return { rows, space, scheduleTypes, takes, predictions };
}

const METHODS: ReadonlyMap<string, Method> = new Map([
  ["ddim", method(ddimRows, "whole", TIMESTEP_SPACINGS)],
  ["ddpm", method(ddpmRows, "whole", TIMESTEP_SPACINGS, ONE)],
  ["pndm", method(pndmRows, "whole", TIMESTEP_SPACINGS, [], NO_X0)],
  ["lcm", method(lcmRows, "distilled", [], ONE)],
  ["tcd", method(tcdRows, "distilled", [], ONE)],
  ["lms", method(lmsRows, "sigmas")],
  ["euler", method(eulerRows, "sigmas", SCHEDULE_TYPES, BOTH)],
  ["euler_a", method(eulerAncestralRows, "sigmas", TIMESTEP_SPACINGS, [], NO_X0)],
  ["heun", method(heunRows, "sigmas", SCHEDULE_TYPES, ONE)],
  ["dpm2", method(dpm2Rows, "sigmas", SCHEDULE_TYPES, [], NO_X0)],
  ["dpm2_a", method(dpm2AncestralRows, "sigmas", SCHEDULE_TYPES, [], NO_X0)],
  ["dpmpp_sde", method(dpmppSdeRows, "sigmas", SCHEDULE_TYPES, [], NO_X0)],
  ["multistep", method(multistepRows, "solver", SCHEDULE_TYPES, ONE)],
  ["singlestep", method(singlestepRows, "solver", ["linspace", ...SIGMA_SPACINGS], ONE)],
  ["unipc", method(unipcRows, "solver")],
  ["deis", method(deisRows, "solver")],
]);

/** What a picture may ask of its sampler. */
export interface ScheduleOptions {
  /** In place of those that the sampler chooses, from the noisiest, as diffusers' set_timesteps takes them. */
  readonly timesteps?: readonly number[] | null;
  /** Noise levels instead, the last one included. */
  readonly sigmas?: readonly number[] | null;
  /** One of SCHEDULE_TYPES; the model's own if there is none. */
  readonly scheduleType?: string | null;
  /** 0 to 1, the share of fresh noise in DDIM and TCD; other samplers ignore it, as in diffusers. Default: 0. */
  readonly eta?: number;
  /** 0 to 1, the share of the steps that are executed, the last ones. Default: 1. */
  readonly strength?: number;
}

/**
 * Compute the rows of a sampler.
 *
 * descriptions: of the bundle. sampler: a key of `descriptions.samplers`. steps: the number of steps, 1 or more; not read
 * if the options have timesteps or sigmas.
 *
 * Throws UserError for what the sampler cannot do.
 */
export function buildSchedule(
  descriptions: SamplerDescriptions,
  sampler: string,
  steps: number,
  { timesteps = null, sigmas = null, scheduleType = null, eta = 0, strength = 1 }: ScheduleOptions = {},
): Schedule {
  const options = optionsOf(descriptions, sampler, scheduleType);
  const schedule = descriptions.schedules[options.schedule];
  const custom = checkCustom(sampler, options, schedule, timesteps, sigmas);
  const count = custom?.length ?? steps;
  const trainSteps = schedule.alphasCumprod.length;
  checkSteps(sampler, options, count, trainSteps);
  const [chosen, levels] = space(options, schedule, count, timesteps, sigmas);
  checkTimesteps(sampler, chosen, count, trainSteps);
  const begin = Math.max(count - Math.min(Math.trunc(count * strength), count), 0);
  const predictionType = descriptions.predictionType;
  const plan: Plan = { predictionType, schedule, timesteps: chosen, sigmas: levels, begin, steps: count, eta };
  return { initNoiseSigma: initNoiseSigma(options, levels), rows: rowsOf(sampler, options, plan) };
}

/** Return the options of the sampler with the schedule type put in. */
function optionsOf(descriptions: SamplerDescriptions, sampler: string, scheduleType: string | null): SamplerOptions {
  const options = descriptions.samplers.get(sampler);
  if (options === undefined) {
    const wanted = `one of ${[...descriptions.samplers.keys()].sort().join(", ")}`;
    throw new UserError("sampler", `'${sampler}'`, wanted, "choose one of them");
  }
  if (scheduleType === null) return options;
  const known = methodOf(options).scheduleTypes;
  if (!known.includes(scheduleType)) {
    const wanted = known.length ? `one of ${known.join(", ")}` : `none: ${sampler} has timesteps of its own`;
    throw new UserError(`schedule type of the sampler ${sampler}`, `'${scheduleType}'`, wanted, "leave it out");
  }
  if (TIMESTEP_SPACINGS.includes(scheduleType)) {
    return { ...options, timestep_spacing: scheduleType, sigma_spacing: "" };
  }
  return { ...options, sigma_spacing: scheduleType };
}

/** Check the user's timesteps or sigmas. Returns one number for each step, null if there are neither. */
function checkCustom(
  sampler: string,
  options: SamplerOptions,
  schedule: TrainingSchedule,
  timesteps: readonly number[] | null,
  sigmas: readonly number[] | null,
): readonly number[] | null {
  const { takes, space } = methodOf(options);
  if (timesteps !== null && sigmas !== null) {
    throw new UserError("timesteps and sigmas", "both", "one of them", "leave one out");
  }
  const name = sigmas === null ? "timesteps" : "sigmas";
  const values = sigmas ?? timesteps;
  if (values === null) return null;
  if (!takes.includes(name)) {
    const wanted = takes.length ? takes.join(" or ") : "a number of steps only";
    throw new UserError(`sampler ${sampler}`, name, wanted, `leave the ${name} out or choose another sampler`);
  }
  if (name === "timesteps" && options.sigma_spacing) {
    const got = `timesteps together with ${options.sigma_spacing} sigmas`;
    const remedy = "choose the schedule type leading, linspace or trailing";
    throw new UserError(`sampler ${sampler}`, got, "one of them", remedy);
  }
  const least = name === "sigmas" ? 2 : 1;
  const trainSteps = schedule.alphasCumprod.length;
  const isDescending = values.every((value, i) => i === 0 || values[i - 1] > value); // false for NaN
  if (values.length < least || !isDescending || !Number.isFinite(values[0]) || !(values[values.length - 1] >= 0)) {
    const wanted = `${least} or more numbers, each less than the one before, the last one 0 or more`;
    throw new UserError(name, listed(values), wanted, `correct the ${name}`);
  }
  if (name === "timesteps" && values[0] > trainSteps - 1) {
    const wanted = `0 to ${trainSteps - 1}, what the model was trained on`;
    throw new UserError(name, listed(values), wanted, "correct them");
  }
  if (name === "timesteps" && space !== "sigmas" && !values.every(Number.isInteger)) {
    throw new UserError(name, listed(values), `whole numbers, for the sampler ${sampler}`, "round them");
  }
  return name === "timesteps" ? values : values.slice(0, -1);
}

/** Return for example `[999, 0.5]`. */
function listed(values: readonly number[]): string {
  return `[${values.join(", ")}]`;
}

function checkSteps(sampler: string, options: SamplerOptions, steps: number, trainSteps: number): void {
  const most = methodOf(options).space === "distilled" ? options.original_inference_steps : trainSteps;
  const least = options.method === "pndm" && !options.skip_prk_steps ? RUNGE_KUTTA_STEPS : 1;
  if (!(least <= steps && steps <= most)) {
    const wanted = `${least} to ${most} for the sampler ${sampler}`;
    throw new UserError(STEPS, String(steps), wanted, "choose another number");
  }
}

/** Refuse timesteps that diffusers' rounding moves out of the training range: 61 trailing steps get a 62nd at -1. */
function checkTimesteps(sampler: string, timesteps: readonly number[], steps: number, trainSteps: number): void {
  if (timesteps.every((timestep) => timestep >= 0 && timestep <= trainSteps - 1)) return;
  const ends = listed([timesteps[0], timesteps[timesteps.length - 1]]);
  const got = `${steps}, which gives the sampler ${sampler} the timesteps ${ends}`;
  throw new UserError(STEPS, got, `timesteps from 0 to ${trainSteps - 1}`, "choose another number");
}

/** Choose the timestep of each step, and for samplers that use them the noise levels, float32, one more. */
function space(
  options: SamplerOptions,
  schedule: TrainingSchedule,
  steps: number,
  timesteps: readonly number[] | null,
  sigmas: readonly number[] | null,
): [timesteps: number[], sigmas: Float32Array] {
  const trainSteps = schedule.alphasCumprod.length;
  const { timestep_spacing: spacing, steps_offset: offset } = options;
  const kind = methodOf(options).space;
  if (kind === "sigmas") return kDiffusionSpace(options, schedule, steps, timesteps, sigmas);
  let chosen: number[];
  if (timesteps !== null) chosen = [...timesteps];
  else if (kind === "distilled") chosen = consistencyTimesteps(options.original_inference_steps, trainSteps, steps);
  else if (kind === "whole") chosen = wholeTimesteps(spacing, offset, trainSteps, steps);
  else chosen = solverTimesteps(spacing, offset, trainSteps, steps, options.last_timestep);
  if (options.method === "pndm") chosen = pndmTimesteps(chosen, trainSteps, steps, options.skip_prk_steps);
  return kind === "solver" ? solverSpace(options, schedule, steps, chosen) : [chosen, new Float32Array()];
}

/** Choose timesteps, and between the first and the last one's noise levels the others. */
function kDiffusionSpace(
  options: SamplerOptions,
  schedule: TrainingSchedule,
  steps: number,
  timesteps: readonly number[] | null,
  sigmas: readonly number[] | null,
): [timesteps: number[], sigmas: Float32Array] {
  const table = modelSigmas(schedule);
  const { logSigmas } = schedule;
  if (sigmas !== null) {
    const levels = Float32Array.from(sigmas);
    return [Array.from(levels.subarray(0, -1), (sigma) => timestepOf(sigma, logSigmas)), levels];
  }
  let chosen = timesteps?.map(Math.fround);
  chosen ??= fractionalTimesteps(options.timestep_spacing, options.steps_offset, table.length, steps);
  let levels = interpolate(chosen, table);
  if (options.interpolation_type === "log_linear") {
    levels = linspace(Math.log(table[table.length - 1]), Math.log(table[0]), steps + 1).map(Math.exp);
  }
  if (options.sigma_spacing) {
    levels = spacedSigmas(options, levels[0], levels[levels.length - 1], steps);
    chosen = levels.map((sigma) => timestepOf(sigma, logSigmas));
    if (["dpm2", "dpm2_a"].includes(options.method) && options.sigma_spacing === "karras") {
      chosen = chosen.map(roundHalfToEven);
    }
  }
  const last = options.final_sigmas_type === "sigma_min" ? table[0] : 0;
  return [chosen, Float32Array.from([...levels, last])];
}

/** Keep `timesteps`, or choose noise levels over the whole training range instead; timesteps become whole. */
function solverSpace(
  options: SamplerOptions,
  schedule: TrainingSchedule,
  steps: number,
  timesteps: readonly number[],
): [timesteps: number[], sigmas: Float32Array] {
  const table = modelSigmas(schedule);
  let chosen = timesteps;
  let levels = interpolate(chosen, table);
  let last = table[0];
  if (options.sigma_spacing) {
    levels = spacedSigmas(options, table[table.length - 1], table[0], steps);
    chosen = levels.map((sigma) => timestepOf(sigma, schedule.logSigmas));
    if (["karras", "lu"].includes(options.sigma_spacing) && options.rounds_timesteps) {
      chosen = chosen.map(roundHalfToEven);
    }
    if (!["multistep", "singlestep"].includes(options.method)) last = levels[levels.length - 1];
  }
  if (options.final_sigmas_type === "zero" && options.method !== "deis") last = 0;
  return [chosen.map(Math.trunc), Float32Array.from([...levels, last])];
}

/** Make the rows, and check that all are finite. */
function rowsOf(sampler: string, options: SamplerOptions, plan: Plan): Row[] {
  const { predictions, rows } = methodOf(options);
  const remedy = "choose another number of steps, schedule type or sampler";
  if (!predictions.includes(plan.predictionType)) {
    const wanted = `one that predicts ${predictions.join(" or ")}`;
    throw new UserError(`sampler ${sampler}`, `a model that predicts ${plan.predictionType}`, wanted, remedy);
  }
  return rows(plan, options).map((row, i) => {
    if (Object.values(row).flat().every(Number.isFinite)) return row;
    const where = `${plan.steps} steps of the sampler ${sampler}, row ${i + 1}`;
    throw new UserError(where, "a division by zero", "finite coefficients", remedy);
  });
}

function initNoiseSigma(options: SamplerOptions, sigmas: Float32Array): number {
  if (methodOf(options).space !== "sigmas") return 1;
  const largest = sigmas.reduce((a, b) => Math.max(a, b));
  return ["linspace", "trailing"].includes(options.timestep_spacing) ? largest : (largest ** 2 + 1) ** 0.5;
}

function methodOf(options: SamplerOptions): Method {
  const found = METHODS.get(options.method);
  if (found === undefined) throw new Error(`the bundle's sampler method ${options.method} is unknown`);
  return found;
}

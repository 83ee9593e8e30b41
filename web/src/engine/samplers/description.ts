/**
 * samplers.json: what a bundle says of its model's training schedule and of every sampler's options.
 *
 * The engine computes a sampler's coefficients from this, for any number of steps.
 * Twin: mlc_controlnet/bundle/sampler_description.py.
 */

import { UserError } from "../errors.ts";
import {
  absentMeans,
  boolean,
  integer,
  list,
  mapping,
  number,
  type Parsed,
  parseJson,
  REMEDY,
  record,
  string,
} from "../json_record.ts";

const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"];

/** The noise levels that a model was trained on, both float32 [N], by timestep. */
export interface TrainingSchedule {
  /** The share of the signal in the variance: x = sqrt(a) x0 + sqrt(1 - a) noise. */
  readonly alphasCumprod: Float32Array;
  /** log(sqrt((1 - a) / a)), stored because libraries disagree about the last bit of a float32 logarithm. */
  readonly logSigmas: Float32Array;
}

const samplerOptions = record({
  method: string, // a key of METHODS in schedule.ts; several samplers may share one
  schedule: absentMeans(0, integer), // index of the training schedule
  timestep_spacing: absentMeans("linspace", string),
  steps_offset: absentMeans(0, integer),
  sigma_spacing: absentMeans("", string), // karras, exponential, beta or lu; empty: at the model's own timesteps
  sigma_min: absentMeans(0, number), // the ends of that spacing; 0 for the schedule's own
  sigma_max: absentMeans(0, number),
  final_sigmas_type: absentMeans("zero", string),
  interpolation_type: absentMeans("linear", string),
  final_alpha_cumprod: absentMeans(1, number), // the share of the signal after the last step
  variance_type: absentMeans("fixed_small", string),
  skip_prk_steps: absentMeans(false, boolean),
  original_inference_steps: absentMeans(50, integer),
  timestep_scaling: absentMeans(10, number),
  algorithm_type: absentMeans("dpmsolver++", string),
  solver_order: absentMeans(2, integer),
  solver_type: absentMeans("midpoint", string),
  lower_order_final: absentMeans(true, boolean),
  euler_at_final: absentMeans(false, boolean),
  last_timestep: absentMeans(1000, integer), // the timesteps that DPM-Solver uses, less than N if it clips lambda
  rounds_timesteps: absentMeans(true, boolean), // DPM-Solver rounds the timesteps of Karras' sigmas
  predict_x0: absentMeans(true, boolean),
  disable_corrector: absentMeans<readonly number[]>([], list(integer)),
});

/** One sampler: the method, and the options of diffusers' class under diffusers' names, as far as they matter. */
export type SamplerOptions = Parsed<typeof samplerOptions>;

/** The content of samplers.json. */
export interface SamplerDescriptions {
  /** What the model's output is: epsilon, v_prediction or sample. */
  readonly predictionType: string;
  /** They differ between samplers if only some of diffusers' classes know an option of the model. */
  readonly schedules: readonly TrainingSchedule[];
  /** Sampler name, then its options. */
  readonly samplers: ReadonlyMap<string, SamplerOptions>;
}

const rawDescriptions = record({
  prediction_type: string,
  schedules: list(record({ alphas_cumprod: string, log_sigmas: string })), // little-endian float32 in base64
  samplers: mapping(samplerOptions),
});

/** Parse samplers.json; `where` names the file in errors. Throws UserError if it is not sound. */
export function descriptionsFromJson(bytes: Uint8Array, where: string): SamplerDescriptions {
  const parsed = rawDescriptions(parseJson(bytes, where, "descriptions of samplers"), where);
  if (!PREDICTION_TYPES.includes(parsed.prediction_type)) {
    const wanted = `one of ${PREDICTION_TYPES.join(", ")}`;
    throw new UserError(`${where}.prediction_type`, `'${parsed.prediction_type}'`, wanted, REMEDY, "bad-bundle");
  }
  const schedules = parsed.schedules.map((raw, i) => schedule(raw, `${where}.schedules[${i}]`));
  for (const [name, options] of Object.entries(parsed.samplers)) {
    if (!schedules[options.schedule]) {
      const wanted = `0 to ${schedules.length - 1}`;
      throw new UserError(`${where}.samplers.${name}.schedule`, String(options.schedule), wanted, REMEDY, "bad-bundle");
    }
  }
  return { predictionType: parsed.prediction_type, schedules, samplers: new Map(Object.entries(parsed.samplers)) };
}

function schedule(raw: { alphas_cumprod: string; log_sigmas: string }, where: string): TrainingSchedule {
  const alphasCumprod = decode(raw.alphas_cumprod, `${where}.alphas_cumprod`);
  const logSigmas = decode(raw.log_sigmas, `${where}.log_sigmas`);
  if (alphasCumprod.length < 2 || alphasCumprod.length !== logSigmas.length) {
    const got = `${alphasCumprod.length} and ${logSigmas.length} numbers`;
    throw new UserError(where, got, "two lists of one length, 2 or more", REMEDY, "bad-bundle");
  }
  return { alphasCumprod, logSigmas };
}

function decode(text: string, where: string): Float32Array {
  try {
    const view = new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
    if (view.byteLength % 4) throw new RangeError("no whole number of float32");
    return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
  } catch {
    throw new UserError(where, "text that does not decode", "float32 numbers in base64", REMEDY, "bad-bundle");
  }
}

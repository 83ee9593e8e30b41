/**
 * samplers.json: a scheduler as numbers. Twin: mlc_controlnet/bundle/sampler_table.py.
 *
 * One step of a deterministic sampler is linear, so six coefficients and a timestep describe it. With the model output m
 * at step i:
 *
 *     m  = model(model_input_scale * x, timestep)
 *     x0 = x0_sample * x + x0_output * m
 *     x <- next_sample * x + next_x0 * x0 + next_previous_x0 * x0_of_the_step_before
 */

import { UserError } from "./errors.ts";
import { list, mapping, number, parseJson, REMEDY, record } from "./json_record.ts";

/** One step's timestep and coefficients. */
export interface SamplerRow {
  readonly timestep: number;
  readonly modelInputScale: number;
  readonly x0Sample: number;
  readonly x0Output: number;
  readonly nextSample: number;
  readonly nextX0: number;
  /** 0 in a first-order sampler and at the first step. */
  readonly nextPreviousX0: number;
}

/** All steps of one sampler for one number of steps. */
export interface SamplerTable {
  /** x starts as standard normal noise times this. */
  readonly initNoiseSigma: number;
  readonly rows: readonly SamplerRow[];
}

/** Sampler name, then number of steps. */
export type SamplerTables = ReadonlyMap<string, ReadonlyMap<number, SamplerTable>>;

const rawTables = mapping(mapping(record({ init_noise_sigma: number, rows: list(list(number)) })));

/** Parse samplers.json; `where` names the file in errors. Throws UserError if it is not sound. */
export function parseSamplers(bytes: Uint8Array, where: string): SamplerTables {
  const parsed = rawTables(parseJson(bytes, where, "sampler tables"), where);
  return new Map(
    Object.entries(parsed).map(([name, bySteps]) => {
      const tables = Object.entries(bySteps).map(([steps, raw]): [number, SamplerTable] => {
        if (!/^\d+$/.test(steps) || Number(steps) !== raw.rows.length || !raw.rows.length) {
          throw new UserError(`${where}: ${name}.${steps}`, `${raw.rows.length} rows`, `${steps} rows`, REMEDY);
        }
        const rows = raw.rows.map((row, i) => samplerRow(row, `${where}: ${name}.${steps}[${i}]`));
        return [Number(steps), { initNoiseSigma: raw.init_noise_sigma, rows }];
      });
      return [name, new Map(tables)];
    }),
  );
}

/** Return the table for `sampler` and `steps`. Throws UserError that lists the available ones. */
export function pickTable(tables: SamplerTables, sampler: string, steps: number): SamplerTable {
  const bySteps = tables.get(sampler);
  if (bySteps === undefined) {
    const wanted = `one of ${[...tables.keys()].sort().join(", ")}`;
    throw new UserError("sampler", `'${sampler}'`, wanted, "choose one of them");
  }
  const table = bySteps.get(steps);
  if (table === undefined) {
    const remedy = `choose one of these numbers for the sampler ${sampler}`;
    throw new UserError("num inference steps", String(steps), describeCounts(bySteps.keys()), remedy);
  }
  return table;
}

/** Return for example `1 to 100, 125 or 150` for {1, 2, ..., 100, 125, 150}. */
export function describeCounts(counts: Iterable<number>): string {
  const runs: number[][] = [];
  for (const count of [...counts].sort((a, b) => a - b)) {
    const run = runs.at(-1);
    if (run && count === run[run.length - 1] + 1) run.push(count);
    else runs.push([count]);
  }
  const words = runs.map((run) => (run.length > 2 ? `${run[0]} to ${run[run.length - 1]}` : run.join(" or ")));
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} or ${words[words.length - 1]}` : words.join("");
}

function samplerRow(numbers: readonly number[], where: string): SamplerRow {
  if (numbers.length !== 7) throw new UserError(where, `${numbers.length} numbers`, "7", REMEDY);
  const [timestep, modelInputScale, x0Sample, x0Output, nextSample, nextX0, nextPreviousX0] = numbers;
  return { timestep, modelInputScale, x0Sample, x0Output, nextSample, nextX0, nextPreviousX0 };
}

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { descriptionsFromJson } from "../../../src/engine/samplers/description";
import { advance, INITIAL_STATE, type Row } from "../../../src/engine/samplers/row";
import { buildSchedule } from "../../../src/engine/samplers/schedule";

interface Options {
  timesteps?: number[];
  sigmas?: number[];
  schedule_type?: string;
  eta?: number;
  strength?: number;
}

interface Golden {
  bundles: Record<string, unknown>;
  schedules: {
    bundle: string;
    sampler: string;
    steps: number;
    options: Options;
    init: number;
    rows: (number | number[])[][];
  }[];
  errors: { sampler: string; steps: number; options: Options; message: string }[];
}

/** Written by the command that it names. */
const golden: Golden = JSON.parse(
  readFileSync(new URL("../../../../tests/fixtures/samplers.json", import.meta.url), "utf8"),
);
const bundles = new Map(
  Object.entries(golden.bundles).map(([name, raw]) => [
    name,
    descriptionsFromJson(new TextEncoder().encode(JSON.stringify(raw)), "samplers.json"),
  ]),
);

function build(bundle: string, sampler: string, steps: number, options: Options) {
  const descriptions = bundles.get(bundle);
  if (!descriptions) throw new Error(bundle);
  return buildSchedule(descriptions, sampler, steps, { ...options, scheduleType: options.schedule_type });
}

/** In the order of Python's fields. */
function numbersOf(row: Row): (number | readonly number[])[] {
  return [
    row.timestep,
    row.inputScale,
    row.x0Sample,
    row.x0Output,
    row.outputSample,
    row.outputModel,
    row.correctedSamples,
    row.correctedOutputs,
    row.nextSamples,
    row.nextOutputs,
    row.nextNoises,
    row.signalScale,
    row.noiseScale,
  ];
}

test.each(golden.schedules)("$bundle, $sampler, $steps steps, $options: Python's rows", (wanted) => {
  const schedule = build(wanted.bundle, wanted.sampler, wanted.steps, wanted.options);
  expect(schedule.initNoiseSigma / wanted.init).toBeCloseTo(1, 6);
  expect(schedule.rows.length).toBe(wanted.rows.length);
  schedule.rows.forEach((row, i) => {
    const ours = numbersOf(row);
    expect(ours.map((value) => [value].flat().length)).toEqual(wanted.rows[i].map((value) => [value].flat().length));
    // A noise level in float32 may differ in its last bit, where two languages' powers do.
    const errors = ours.flat().map((value, k) => Math.abs(value - wanted.rows[i].flat()[k]) / (1 + Math.abs(value)));
    expect(Math.max(...errors)).toBeLessThan(1e-6);
  });
});

test.each(golden.errors)(
  "$sampler, $steps steps, $options: Python's message",
  ({ sampler, steps, options, message }) => {
    expect(() => build("epsilon", sampler, steps, options)).toThrow(message);
  },
);

test("every step count from 1 to 150 has as many rows as the sampler takes", () => {
  for (const sampler of bundles.get("epsilon")?.samplers.keys() ?? []) {
    const isDouble = ["heun", "dpm2", "dpm2_a", "dpmpp_sde"].includes(sampler);
    for (let steps = 1; steps <= (["lcm", "tcd"].includes(sampler) ? 50 : 150); steps += 7) {
      const rows = build("epsilon", sampler, steps, {}).rows.length;
      expect(rows).toBe(isDouble ? 2 * steps - 1 : steps + (sampler === "pndm" && steps > 1 ? 1 : 0));
    }
  }
});

const ROW: Row = {
  timestep: 1,
  inputScale: 1,
  x0Sample: 2,
  x0Output: 3,
  outputSample: 5,
  outputModel: 7,
  correctedSamples: [],
  correctedOutputs: [],
  nextSamples: [0, 10],
  nextOutputs: [1, 100],
  nextNoises: [1000, 10000],
  signalScale: 1,
  noiseScale: 0,
};

test("a row reads its history newest first", () => {
  const state = { samples: [[2]], outputs: [[3]], noises: [[4]] };
  const next = advance(ROW, state, [1], [1], () => [5]);
  expect([...next.x0, ...next.x]).toEqual([5, 10 * 2 + 12 + 100 * 3 + 1000 * 5 + 10000 * 4]);
  expect(next.state.samples[0][0]).toBe(1);
  expect(next.state.outputs[0][0]).toBe(12);
  expect(next.state.noises[0][0]).toBe(5);
});

test("a corrector replaces the sample", () => {
  const row = { ...ROW, correctedSamples: [10], correctedOutputs: [1, 100], nextNoises: [], nextSamples: [1] };
  const state = { samples: [[2]], outputs: [[3]], noises: [] };
  const next = advance({ ...row, nextOutputs: [0] }, state, [1], [1], () => [5]);
  expect(next.x[0]).toBe(10 * 2 + 12 + 100 * 3);
  expect(next.state.samples[0][0]).toBe(next.x[0]);
});

test("noise is drawn only where it is needed", () => {
  const refuse = () => {
    throw new Error("drawn");
  };
  expect(advance({ ...ROW, nextNoises: [] }, INITIAL_STATE, [1], [1], refuse).x[0]).toBe(12);
});

import { expect, test } from "vitest";
import { controlUnits, guessScales, isActive, modeScales } from "../../src/engine/controls";
import type { Settings } from "../../src/engine/request";
import { DEPTH, LINES } from "./sample_bundle";

const settings = {
  controlnets: ["depth", "lines"],
  controlnetConditioningScale: [2, 1],
  controlGuidanceStart: 0,
  controlGuidanceEnd: [0.5, 1],
  controlMode: ["prompt", "control"],
  guessMode: false,
} as unknown as Settings;
const units = (changes: Partial<Settings>, pools = false) =>
  controlUnits({ ...settings, ...changes }, [LINES, { ...DEPTH, global_pool_conditions: pools }], 2);

test("guess mode has diffusers' scales, numpy's logspace(-1, 0, 13)", () => {
  const scales = guessScales(13);
  expect(scales).toHaveLength(13);
  for (const [i, scale] of scales.entries()) expect(scale).toBeCloseTo(10 ** (-1 + i / 12), 12);
  expect(guessScales(1)).toEqual([0.1]);
});

test("the control modes weaken the finer residuals", () => {
  expect(modeScales("balanced", 3)).toEqual([1, 1, 1]);
  expect(modeScales("prompt", 3)).toEqual([0.825 ** 2, 0.825, 1]);
  expect(modeScales("control", 3)).toEqual(modeScales("prompt", 3));
});

test("each ControlNet has its own settings, in the order of the request", () => {
  expect(units({})).toEqual([
    { controlnet: DEPTH, residualScales: [2 * 0.825, 2], start: 0, end: 0.5, promptOnly: false },
    { controlnet: LINES, residualScales: [0.825, 1], start: 0, end: 1, promptOnly: true },
  ]);
});

test("guess mode leaves the negative prompt alone, and weakens only a ControlNet that does not pool", () => {
  const [depth, lines] = units({ guessMode: true, controlMode: "balanced", controlnetConditioningScale: 1 }, true);
  expect([depth.residualScales, lines.residualScales]).toEqual([
    [1, 1],
    [0.1, 1],
  ]);
  expect([depth.promptOnly, lines.promptOnly]).toEqual([true, true]);
});

test("a ControlNet is active between its start and its end, unless its scale is 0", () => {
  const [depth] = units({});
  expect([0, 1, 2, 3].map((index) => isActive(depth, index, 4))).toEqual([true, true, false, false]);
  expect(isActive({ ...depth, residualScales: [0, 0] }, 0, 4)).toBe(false);
});

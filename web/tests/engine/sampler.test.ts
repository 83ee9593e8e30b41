import { expect, test } from "vitest";
import { describeCounts, parseSamplers, pickTable } from "../../src/engine/sampler";
import { FILES } from "./sample_bundle";

const tables = parseSamplers(FILES["samplers.json"], "samplers.json");
const parse = (value: unknown) => parseSamplers(new TextEncoder().encode(JSON.stringify(value)), "samplers.json");

test("a row's numbers keep their order", () => {
  const table = parse({ euler: { "1": { init_noise_sigma: 14, rows: [[1, 2, 3, 4, 5, 6, 7]] } } })
    .get("euler")
    ?.get(1);
  expect(table).toEqual({
    initNoiseSigma: 14,
    rows: [{ timestep: 1, modelInputScale: 2, x0Sample: 3, x0Output: 4, nextSample: 5, nextX0: 6, nextPreviousX0: 7 }],
  });
});

test("a table is picked by sampler and steps", () => {
  expect(pickTable(tables, "ddim", 2).rows.map((row) => row.timestep)).toEqual([900, 400]);
});

test.each([0, 1001, 1.5])("%d steps are refused with a list of what there is", (steps) => {
  expect(() => pickTable(tables, "ddim", steps)).toThrow(
    `steps: got ${steps}, wanted 1 or 2; choose one of these numbers for the sampler ddim`,
  );
});

test("an unknown sampler is refused with a list of what there is", () => {
  expect(() => pickTable(tables, "lms", 2)).toThrow("sampler: got 'lms', wanted one of ddim; choose one of them");
});

test("counts are told in runs", () => {
  expect(describeCounts([2, 1, 3, 125, 150])).toBe("1 to 3, 125 or 150");
  expect(describeCounts([1, 2])).toBe("1 or 2");
  expect(describeCounts([4])).toBe("4");
});

test("a table whose name is not its length is refused", () => {
  expect(() => parse({ ddim: { "2": { init_noise_sigma: 1, rows: [[1, 2, 3, 4, 5, 6, 7]] } } })).toThrow(
    "samplers.json: ddim.2: got 1 rows, wanted 2 rows",
  );
});

test("a row of six numbers is refused", () => {
  expect(() => parse({ ddim: { "1": { init_noise_sigma: 1, rows: [[1, 2, 3, 4, 5, 6]] } } })).toThrow(
    "samplers.json: ddim.1[0]: got 6 numbers, wanted 7",
  );
});

import { expect, test } from "vitest";
import { descriptionsFromJson } from "../../../src/engine/samplers/description";

const RAW = {
  prediction_type: "epsilon",
  schedules: [{ alphas_cumprod: "ZmZmP6uqqj4AAAAA", log_sigmas: "zcyMv5qZmT4AAIB/" }], // 0.9, 1/3, 0; -1.1, 0.3, Infinity
  samplers: { ddim: { method: "ddim" }, unipc: { method: "unipc", solver_order: 3, disable_corrector: [0, 1] } },
};

const parse = (value: unknown) =>
  descriptionsFromJson(new TextEncoder().encode(JSON.stringify(value)), "samplers.json");

test("float32 numbers are read bit by bit, and options that are not written have their default", () => {
  const { predictionType, schedules, samplers } = parse(RAW);
  expect(predictionType).toBe("epsilon");
  expect([...schedules[0].alphasCumprod]).toEqual([0.9, 1 / 3, 0].map(Math.fround));
  expect([...schedules[0].logSigmas]).toEqual([-1.1, 0.3, Number.POSITIVE_INFINITY].map(Math.fround));
  expect(samplers.get("ddim")).toMatchObject({ method: "ddim", solver_order: 2, final_sigmas_type: "zero" });
  expect(samplers.get("unipc")).toMatchObject({ solver_order: 3, disable_corrector: [0, 1] });
});

test.each([
  ["text that is no object", [], "samplers.json: got []"],
  ["an unknown prediction", { ...RAW, prediction_type: "flow" }, "prediction_type: got 'flow', wanted one of epsilon"],
  ["a schedule that is not there", { ...RAW, schedules: [] }, "samplers.ddim.schedule: got 0, wanted 0 to -1"],
  ["an unknown option", { ...RAW, samplers: { ddim: { method: "ddim", order: 1 } } }, "ddim: got unknown order"],
  [
    "half a number",
    { ...RAW, schedules: [{ ...RAW.schedules[0], log_sigmas: "AAAA" }] },
    "schedules[0].log_sigmas: got text that does not decode",
  ],
  [
    "lists of different lengths",
    { ...RAW, schedules: [{ ...RAW.schedules[0], log_sigmas: "AAAAAA==" }] },
    "schedules[0]: got 3 and 1 numbers",
  ],
])("%s is refused", (_, raw, message) => {
  expect(() => parse(raw)).toThrow(message);
});

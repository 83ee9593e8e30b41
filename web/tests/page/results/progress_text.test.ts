import { afterEach, expect, test } from "vitest";
import { LoadProgress, seconds, stepText } from "../../../src/page/results/progress_text";
import { language } from "../../../src/page/text";

afterEach(() => {
  language.value = "en";
});

test("loading tells bytes and kernels as they come, each for half of the bar", () => {
  const progress = new LoadProgress();
  expect([progress.text, progress.fraction]).toEqual(["Loading the model…", 0]);
  progress.add({ phase: "download", done: 6_240_000, total: 12_480_000 });
  expect([progress.text, progress.fraction]).toEqual(["Loading the model: 6.2 of 12.5 MB", 0.25]);
  progress.add({ phase: "compile", done: 5, total: 5 });
  expect([progress.text, progress.fraction]).toEqual(["Loading the model: 6.2 of 12.5 MB, 5 of 5 GPU kernels", 0.75]);
});

test("a step tells what is left from what has passed", () => {
  expect(stepText(0, 20, 1000)).toBe("Step 1 of 20, about 19 s left");
  expect(stepText(9, 20, 5000)).toBe("Step 10 of 20, about 5 s left");
});

test("the last step, and steps of less than a second, tell no rest", () => {
  expect(stepText(19, 20, 60_000)).toBe("Step 20 of 20");
  expect(stepText(0, 4, 100)).toBe("Step 1 of 4");
});

test("seconds have one decimal, after the point of the language", () => {
  expect(seconds(1249)).toBe("1.2 s");
  language.value = "de";
  expect(seconds(1249)).toBe("1,2 s");
});

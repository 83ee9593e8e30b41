import { expect, test } from "vitest";
import { type BatchRequest, oneRequestEach, seedsOf } from "../../src/engine/batch";
import { MAX_SEED } from "../../src/engine/constants";

const requests = (changes: Partial<BatchRequest>) => oneRequestEach({ prompt: "gold", ...changes });

test("one prompt is one request, which keeps its other options", () => {
  expect(requests({ seed: 5, guidanceScale: 2 })).toEqual([
    { prompt: "gold", seed: 5, guidanceScale: 2, latents: undefined },
  ]);
});

test("all pictures of the first prompt come before those of the second, each with a seed of its own", () => {
  const all = requests({ prompt: ["gold", "navy"], negativePrompt: ["red", "blue"], numImagesPerPrompt: 2, seed: 7 });
  expect(all.map(({ prompt, negativePrompt, seed }) => [prompt, negativePrompt, seed])).toEqual([
    ["gold", "red", 7],
    ["gold", "red", 8],
    ["navy", "blue", 9],
    ["navy", "blue", 10],
  ]);
});

test("one negative prompt is that of all", () => {
  const all = requests({ prompt: ["gold", "navy"], negativePrompt: "red" });
  expect(all.map(({ negativePrompt }) => negativePrompt)).toEqual(["red", "red"]);
});

test("a list of seeds has one for each picture", () => {
  expect(requests({ numImagesPerPrompt: 2, seed: [9, 3] }).map(({ seed }) => seed)).toEqual([9, 3]);
});

test("noise is given out in the order of the pictures", () => {
  const all = requests({ numImagesPerPrompt: 2, latents: Float32Array.of(1, 2, 3, 4) });
  expect(all.map(({ latents }) => latents)).toEqual([Float32Array.of(1, 2), Float32Array.of(3, 4)]);
});

test("random seeds follow one another, and none is too large", () => {
  for (let i = 0; i < 20; i++) {
    const [first, second] = seedsOf(undefined, 2);
    expect(second).toBe(first + 1);
    expect(second).toBeLessThanOrEqual(MAX_SEED);
  }
});

test.each<[string, Partial<BatchRequest>, string]>([
  [
    "three negative prompts for two",
    { prompt: ["a", "b"], negativePrompt: ["a", "b", "c"] },
    "negative prompt: got 3 texts, wanted one text, or 2, one for each prompt; pass as many as prompts",
  ],
  ["no prompt", { prompt: [] }, "num images per prompt: got 1 for 0 prompts, wanted 1 to 1000 pictures in one call;"],
  ["half a picture", { numImagesPerPrompt: 0.5 }, "num images per prompt: got 0.5 for 1 prompts, wanted 1 to 1000"],
  ["too many", { numImagesPerPrompt: 1001 }, "num images per prompt: got 1001 for 1 prompts"],
  ["two seeds for one", { seed: [1, 2] }, "seed: got 2 seeds, wanted one, or 1, one for each picture; pass as many"],
  [
    "seeds past the largest",
    { numImagesPerPrompt: 2, seed: MAX_SEED },
    `seed: got ${MAX_SEED}, wanted an integer from 0 to ${MAX_SEED - 1}`,
  ],
])("%s is refused", (_, changes, complaint) => {
  expect(() => requests(changes)).toThrow(complaint);
});

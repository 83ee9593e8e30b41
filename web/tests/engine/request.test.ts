import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MAX_SEED, OPTION_NAMES } from "../../src/engine/constants";
import { checkRequest, type GenerateRequest, type Settings, toRecord } from "../../src/engine/request";
import { resolve } from "../../src/engine/resolve";
import { descriptionsFromJson } from "../../src/engine/samplers/description";
import { DEPTH, FILES, HEIGHT, LINES, makeManifest, WIDTH } from "./sample_bundle";

const pixel = { width: 1, height: 1, data: new Uint8ClampedArray(4) };
const request: GenerateRequest = { prompt: "c", controlImage: pixel };
const complete: Settings = {
  prompt: "gold",
  negativePrompt: "navy",
  prompt2: null,
  negativePrompt2: null,
  promptSyntax: "webui",
  clipSkip: 0,
  seed: 5,
  numInferenceSteps: 2,
  guidanceScale: 2.5,
  guidanceRescale: 0,
  controlnets: ["lines"],
  controlnetConditioningScale: 1,
  controlGuidanceStart: 0,
  controlGuidanceEnd: 1,
  controlMode: "balanced",
  guessMode: false,
  sampler: "ddim",
  scheduleType: "trailing",
  eta: 0,
  timesteps: null,
  sigmas: null,
  height: HEIGHT,
  width: WIDTH,
  originalSize: null,
  cropsCoordsTopLeft: null,
  targetSize: null,
  negativeOriginalSize: null,
  negativeCropsCoordsTopLeft: null,
  negativeTargetSize: null,
  hiresScale: null,
  hiresStrength: null,
  hiresSteps: null,
  hiresUpscaler: null,
  deepcacheInterval: 1,
  strength: 1,
  maskBlur: 0,
  paddingMaskCrop: null,
  maskedContent: "original",
  applyOverlay: true,
};
const samplers = descriptionsFromJson(FILES["samplers.json"], "samplers.json");
const settingsOf = (changes: Partial<GenerateRequest>) => resolve({ ...request, ...changes }, makeManifest(), samplers);
const settingsOfTwo = (changes: Partial<GenerateRequest>) => {
  const manifest = makeManifest(undefined, { controlnets: [LINES, DEPTH] });
  return resolve({ ...request, controlImage: [pixel, pixel], ...changes }, manifest, samplers);
};

test("the options are Python's, in the same order", () => {
  expect(Object.keys(complete)).toEqual(OPTION_NAMES); // the compiler wants every key of Settings there
});

test("every option gets a value", () => {
  expect(Object.keys(settingsOf({}))).toEqual(OPTION_NAMES);
  expect(Object.values(settingsOf({}))).not.toContain(undefined);
});

test("complete settings stay as they are", () => {
  expect(settingsOf(complete)).toEqual(complete);
});

test("all ControlNets are used unless the request names some", () => {
  expect(settingsOfTwo({}).controlnets).toEqual(["lines", "depth"]);
  expect(settingsOfTwo({ controlnets: ["depth"], controlImage: pixel }).controlnets).toEqual(["depth"]);
  expect(settingsOfTwo({ controlnets: [], controlImage: undefined }).controlnets).toEqual([]);
});

test("a picture to start from is changed by 0.8, one with a mask wholly, unless the request says more", () => {
  expect(settingsOf({}).strength).toBe(1);
  expect(settingsOf({ image: pixel }).strength).toBe(0.8);
  expect(settingsOf({ image: pixel, maskImage: pixel }).strength).toBe(1);
  expect(settingsOf({ image: pixel, strength: 0 }).strength).toBe(0);
});

test("timesteps are a list of either kind", () => {
  const timesteps = [900, 500, 100];
  const of = (given: unknown) => settingsOf({ sampler: "ddpm", timesteps: given as number[] }).timesteps;
  expect([of(timesteps), of(Float32Array.from(timesteps)), of(undefined)]).toEqual([timesteps, timesteps, null]);
});

test("encoded prompts have the length that the UNet reads", () => {
  expect(settingsOf({ prompt: "", promptEmbeds: new Float32Array(5) }).prompt).toBe("");
  expect(() => settingsOf({ negativePromptEmbeds: new Float32Array(6) })).toThrow(
    "negative prompt embeds: got 6 numbers, wanted [1, 5, 1], what this bundle's UNet reads;",
  );
  expect(() => settingsOf({ prompt: "", promptEmbeds: new Float32Array(5).fill(Number.NaN) })).toThrow(
    "prompt embeds: got NaN or infinity, wanted finite numbers;",
  );
});

test("an option of the ControlNets is one value or a list, in the record too", () => {
  const settings = settingsOfTwo({ controlnetConditioningScale: [0.5, 1], controlMode: ["prompt", "control"] });
  expect(toRecord(settings)).toMatchObject({
    controlnets: '["lines","depth"]',
    controlnet_conditioning_scale: "[0.5,1]",
    control_mode: '["prompt","control"]',
    control_guidance_end: "1",
  });
});

test("zero is a seed and a scale", () => {
  expect(settingsOf({ seed: 0, guidanceScale: 0 })).toMatchObject({ seed: 0, guidanceScale: 0 });
});

test.each([1.5, 2 ** 53, "7" as never])("seed %s is refused", (seed) => {
  expect(() => settingsOf({ seed })).toThrow(`seed: got ${seed}, wanted an integer from 0 to 9007199254740991`);
});

test("random seeds fill the whole range", () => {
  const seeds = Array.from({ length: 64 }, () => settingsOf({}).seed);
  expect(seeds.every((seed) => Number.isSafeInteger(seed) && 0 <= seed && seed <= MAX_SEED)).toBe(true);
  expect(Math.max(...seeds)).toBeGreaterThan(2 ** 32);
});

test("every option and picture is a known key, in camelCase only", () => {
  expect(() => checkRequest({ ...complete, controlImage: pixel, image: pixel, maskImage: pixel })).not.toThrow();
  expect(() => checkRequest({ ...request, num_inference_steps: 4 } as never)).toThrow(
    "key of the request: got 'num_inference_steps', wanted one of prompt, negativePrompt, prompt2, " +
      "negativePrompt2, promptSyntax, clipSkip, seed, numInferenceSteps, guidanceScale, guidanceRescale, controlnets, controlnetConditioningScale, controlGuidanceStart, controlGuidanceEnd, controlMode, " +
      "guessMode, sampler, scheduleType, eta, timesteps, sigmas, height, width, originalSize, cropsCoordsTopLeft, " +
      "targetSize, negativeOriginalSize, negativeCropsCoordsTopLeft, negativeTargetSize, hiresScale, hiresStrength, " +
      "hiresSteps, hiresUpscaler, deepcacheInterval, strength, maskBlur, paddingMaskCrop, maskedContent, applyOverlay, " +
      "controlImage, image, maskImage, latents, promptEmbeds, negativePromptEmbeds, " +
      "pooledPromptEmbeds, negativePooledPromptEmbeds; rename it or leave it out",
  );
});

test("the record has every option, under Python's names", () => {
  expect(toRecord(complete)).toEqual({
    prompt: "gold",
    negative_prompt: "navy",
    prompt_syntax: "webui",
    clip_skip: "0",
    seed: "5",
    num_inference_steps: "2",
    guidance_scale: "2.5",
    guidance_rescale: "0",
    controlnets: '["lines"]',
    controlnet_conditioning_scale: "1",
    control_guidance_start: "0",
    control_guidance_end: "1",
    control_mode: "balanced",
    guess_mode: "false",
    sampler: "ddim",
    schedule_type: "trailing",
    eta: "0",
    height: "16",
    width: "24",
    deepcache_interval: "1",
    strength: "1",
    mask_blur: "0",
    masked_content: "original",
    apply_overlay: "true",
  });
});

describe("a number in the record", () => {
  const file = new URL("../../../tests/fixtures/json_numbers.json", import.meta.url);
  // Python's tests read the same file.
  test.each(JSON.parse(readFileSync(file, "utf8")) as [number, string][])("%s is %s", (value, text) => {
    expect(toRecord({ ...complete, guidanceScale: value }).guidance_scale).toBe(text);
  });
});

test.each([
  ["no prompt", { prompt: undefined as never }, "prompt: got undefined, wanted one string;"],
  [
    "a negative prompt that is a number",
    { negativePrompt: 3 as never },
    "negative prompt: got number, wanted one string;",
  ],
  ["steps of 0", { numInferenceSteps: 0 }, "num inference steps: got 0, wanted"],
  ["steps of 1001", { numInferenceSteps: 1001 }, "num inference steps: got 1001, wanted"],
  ["half a step", { numInferenceSteps: 0.5 }, "num inference steps: got 0.5, wanted an integer;"],
  [
    "a syntax that does not exist",
    { promptSyntax: "a1111" as never },
    "prompt syntax: got 'a1111', wanted one of webui, plain; choose one of these",
  ],
  ["prompt editing", { negativePrompt: "a [b:c:0.4]" }, "negative prompt: got [b:c:0.4], wanted words that are the"],
  [
    "layers skipped that do not exist",
    { clipSkip: 3 },
    "clip skip: got 3, wanted 0 to 2: the text encoder has 3 layers;",
  ],
  ["fresh noise of 2", { eta: 2 }, "eta: got 2, wanted a number from 0 to 1;"],
  ["timesteps that are a number", { timesteps: 7 as never }, "timesteps: got 7, wanted a list of numbers;"],
  ["a strength of 2", { strength: 2 }, "strength: got 2, wanted a number from 0 to 1;"],
  ["an overlay that is a number", { applyOverlay: 1 as never }, "apply overlay: got 1, wanted true or false"],
  ["a sampler that does not exist", { sampler: "lms" }, "sampler: got 'lms', wanted one of ddim, ddpm;"],
  ["a negative seed", { seed: -1 }, "seed: got -1, wanted an integer from 0 to 9007199254740991"],
  ["a guidance scale of NaN", { guidanceScale: Number.NaN }, "guidance scale: got NaN, wanted a finite number"],
  [
    "an infinite conditioning scale",
    { controlnetConditioningScale: Infinity },
    "controlnet conditioning scale: got Infinity, wanted a finite",
  ],
  [
    "control that ends before it starts",
    { controlGuidanceStart: 0.5, controlGuidanceEnd: 0.25 },
    "control guidance: got from 0.5 to 0.25, wanted 0 <= start < end <= 1; leave both out",
  ],
  ["control that starts before the first step", { controlGuidanceStart: -1 }, "control guidance: got from -1 to 1"],
])("%s is refused", (_, changes, complaint) => {
  expect(() => settingsOf(changes)).toThrow(complaint);
});

test("one control image is for the first of two ControlNets", () => {
  expect(settingsOfTwo({ controlImage: pixel }).controlnets).toEqual(["lines"]);
  expect(settingsOfTwo({}).controlnets).toEqual(["lines", "depth"]);
});

test.each([
  [
    "a start of one ControlNet after its end",
    { controlnets: ["lines", "depth"], controlGuidanceStart: [0, 0.5], controlGuidanceEnd: 0.5 },
    "control guidance: got from 0.5 to 0.5",
  ],
  [
    "a picture too many",
    { controlnets: ["lines"] },
    "control image: got 2, wanted 1, one for each ControlNet in use (lines); pass as many, or name the ControlNets to use in controlnets: lines, depth",
  ],
  ["pictures without ControlNets", { controlnets: [] }, "control image: got 2, wanted none: none is in use"],
  [
    "a ControlNet that is not there",
    { controlnets: ["canny"] },
    "controlnets: got 'canny', wanted one of lines, depth;",
  ],
  ["a name in place of names", { controlnets: "lines" as never }, "controlnets: got 'lines', wanted a list of names"],
  ["a ControlNet twice", { controlnets: ["lines", "lines"] }, "controlnets: got lines, lines, wanted each name once"],
  [
    "three scales for two",
    { controlnetConditioningScale: [1, 1, 1] },
    "controlnet conditioning scale: got 3 values, wanted one value, or 2",
  ],
  [
    "a scale of NaN among others",
    { controlnetConditioningScale: [1, Number.NaN] },
    "controlnet conditioning scale: got NaN, wanted a finite",
  ],
  [
    "a mode that does not exist",
    { controlMode: "strong" as never },
    "control mode: got 'strong', wanted one of balanced, prompt, control",
  ],
  ["a guess mode that is a number", { guessMode: 1 as never }, "guess mode: got 1, wanted true or false"],
])("%s is refused, of two ControlNets", (_, changes, complaint) => {
  expect(() => settingsOfTwo(changes)).toThrow(complaint);
});

describe("what a bundle must be built for", () => {
  test("a size that the bundle does not have lists those it has", () => {
    const wanted = "size: got 24x32, wanted one of this bundle's, width x height: 24x16; ";
    expect(() => settingsOf({ height: 32 })).toThrow(wanted);
    expect(() => settingsOf({ height: 32 })).toThrow("build the bundle with --size 24x32 too");
  });

  test("hires fix needs the larger size", () => {
    expect(() => settingsOf({ hiresScale: 2 })).toThrow("size of hires fix: got 48x32, wanted one of this bundle's");
  });

  test("hires fix has defaults only if it is on", () => {
    const { hiresStrength, hiresSteps, hiresUpscaler } = settingsOf({ hiresScale: 1 });
    expect([hiresStrength, hiresSteps, hiresUpscaler]).toEqual([0.7, 2, "bilinear"]);
  });

  test.each<[Partial<GenerateRequest>, string]>([
    [
      { hiresScale: 1, hiresUpscaler: "lanczos" as "bilinear" },
      "hires upscaler: got 'lanczos', wanted one of bilinear, nearest, nearest-exact, bicubic; choose one of these",
    ],
    [{ hiresScale: 1, hiresSteps: 0 }, "hires steps: got 0, wanted an integer of 1 or more"],
    [{ hiresScale: 0.5 }, "hires scale: got 0.5, wanted a number of 1 or more"],
    [{ hiresSteps: 4 }, "hires steps: got one without a hires scale, wanted both"],
    [{ hiresScale: 1, image: pixel, maskImage: pixel }, "hires scale: got a mask image beside it, wanted no mask"],
    [{ hiresScale: 1, hiresStrength: 1.5 }, "hires strength: got 1.5, wanted a number from 0 to 1"],
    [{ deepcacheInterval: 0 }, "deepcache interval: got 0, wanted 1 or more"],
    [{ deepcacheInterval: 2 }, "deepcache interval: got 2, wanted 1, because this bundle has no shallow UNet"],
  ])("%o is refused", (changes, complaint) => {
    expect(() => settingsOf(changes)).toThrow(complaint);
  });
});

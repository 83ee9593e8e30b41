import { expect, test } from "vitest";
import type { EngineOptions } from "../../src/engine/create_engine";
import { checkCallbacks, checkOptions, checkRequest } from "../../src/engine/known_keys";
import type { GenerateRequest } from "../../src/engine/pipeline";

const request = { prompt: "c", controlImage: { width: 1, height: 1, data: new Uint8ClampedArray(4) } };

test.each([
  ["stpes", "steps"],
  ["step", "steps"],
  ["Seed", "seed"],
  ["control_image", "controlImage"],
  ["mask_image", "maskImage"],
  ["negativPrompt", "negativePrompt"],
  ["num_inference_steps", "steps"],
  ["controlnet_conditioning_scale", "conditioningScale"],
])("a request with %s is asked whether it means %s", (wrong, right) => {
  expect(() => checkRequest({ ...request, [wrong]: 4 })).toThrow(
    `key of the request: got '${wrong}', wanted one of prompt, controlImage, image, maskImage, negativePrompt, steps, ` +
      `guidanceScale, conditioningScale, controlGuidanceStart, controlGuidanceEnd, seed, sampler; did you mean ${right}?`,
  );
});

test.each(["onStep", "width", "x", "toString"])("%s, which is near to no key, is only refused", (wrong) => {
  expect(() => checkRequest({ ...request, [wrong]: 4 })).toThrow(/got '\w+', wanted one of .*; leave it out$/);
});

test("every key of a request is known", () => {
  const all: Required<GenerateRequest> = {
    ...request,
    image: request.controlImage,
    maskImage: request.controlImage,
    negativePrompt: "",
    steps: 4,
    guidanceScale: 1,
    conditioningScale: 1,
    controlGuidanceStart: 0,
    controlGuidanceEnd: 1,
    seed: 0,
    sampler: "ddim",
  };
  expect(() => checkRequest(all)).not.toThrow();
});

test("options are held to their own keys", () => {
  expect(() => checkOptions({ bundleUrl: "./", memory: undefined, signal: undefined })).not.toThrow();
  expect(() => checkOptions({ bundleURL: "./" } as never)).toThrow(
    "key of the options: got 'bundleURL', wanted one of bundleUrl, memory, onManifest, onProgress, signal; did you mean bundleUrl?",
  );
});

test("callbacks are held to their own keys", () => {
  expect(() => checkCallbacks({ onStep: undefined, onNotice: undefined, signal: undefined })).not.toThrow();
  expect(() => checkCallbacks({ onProgress: () => {} } as never)).toThrow(
    "key of the callbacks: got 'onProgress', wanted one of onStep, onNotice, signal; leave it out",
  );
  expect(() => checkCallbacks((() => {}) as never)).toThrow("callbacks: got () => {}, wanted an object");
});

test.each(["./bundle/", undefined, null])("options that are %s are no object", (options) => {
  expect(() => checkOptions(options as unknown as EngineOptions)).toThrow(
    `options: got ${options}, wanted an object; pass for example { bundleUrl: … }`,
  );
});

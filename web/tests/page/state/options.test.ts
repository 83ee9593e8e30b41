import { beforeEach, expect, test } from "vitest";
import { builtIn } from "../../../src/page/settings/presets";
import { optionsOf, restore, usePreset } from "../../../src/page/state/options";
import { Studio } from "../../../src/page/state/studio";
import type { EngineInfo, RestoredSettings } from "../../../src/worker";
import { DEPTH, LINES, makeManifest, makeXlManifest } from "../../engine/sample_bundle";

let studio: Studio;
const restored = (options: RestoredSettings["options"], model = "circles"): RestoredSettings => ({
  options,
  model,
  bundleSha256: "",
  notices: [],
});
const notices = () => studio.messages.list.value.map(({ text }) => text.join(" "));

beforeEach(() => {
  studio = new Studio();
  const manifest = makeManifest(undefined, { controlnets: [LINES, DEPTH] } as never);
  studio.manifest.value = manifest;
  studio.engine.value = { manifest, samplers: ["ddim", "euler"] } as unknown as EngineInfo;
  studio.setSize({ width: 24, height: 16 });
  studio.controls.value[0].use(manifest.controlnets[0]);
  studio.request.sampler.value = "ddim";
});

test("a second ControlNet comes with its unit, and units that took no part are switched off", () => {
  restore(studio, restored({ controlnets: ["depth"], controlnetConditioningScale: [0.3], controlGuidanceEnd: 0.6 }));
  const units = studio.controls.value.map((unit) => [unit.controlnet.value, unit.enabled.value, unit.weight.value]);
  expect(units).toEqual([
    ["lines", false, undefined],
    ["depth", true, 0.3],
  ]);
  expect(studio.controls.value[1].end.value).toBe(0.6);
});

test("what this model does not offer is told and left out", () => {
  restore(studio, restored({ sampler: "lcm", width: 64, height: 64, controlnets: ["pose"] }, "sd15"));
  expect(notices()).toEqual(
    [
      "This model draws no pictures of 64×64.",
      "This model has no ControlNet pose.",
      "The picture is of the model sd15: this one draws another.",
    ].toSpliced(0, 0, "This model has no sampler lcm."),
  );
  expect(studio.request.sampler.value).toBe("ddim");
  expect(studio.controls.value[0].enabled.value).toBe(true);
});

test("options without a field stay with the request, unless they say what holds anyway", () => {
  restore(studio, restored({ eta: 0.5, clipSkip: 0, scheduleType: "karras", hiresScale: null }));
  expect(studio.request.others.value).toEqual({ eta: 0.5, scheduleType: "karras" });
  expect(optionsOf(studio)).toMatchObject({ eta: 0.5, scheduleType: "karras" });
  restore(studio, restored({ eta: 0 }));
  expect(studio.request.others.value).toEqual({});
});

test("a guidance rescale comes back with a picture, and goes with one of before there was any", () => {
  restore(studio, restored({ guidanceRescale: 0.7 }));
  expect([studio.request.rescale.value, optionsOf(studio).guidanceRescale]).toEqual([0.7, 0.7]);
  restore(studio, restored({ eta: 0 }));
  expect(studio.request.rescale.value).toBe(0);
});

test("of the options without a field, those that the engine would refuse with this model are told and left out", () => {
  const options = {
    prompt2: "in oil",
    targetSize: [8, 8],
    hiresScale: 2,
    hiresSteps: 4,
    clipSkip: 3,
    eta: 0.5,
  } as const;
  restore(studio, restored({ ...options, deepcacheInterval: 3 }));
  expect(studio.request.others.value).toEqual({ eta: 0.5 });
  const names = "Second prompt, Target size, Hires scale, Hires steps, Deepcache interval, Clip skip";
  expect(notices()).toEqual([`This model does not offer: ${names}.`]);
});

test("a second prompt and the sizes of Stable Diffusion XL come back with a picture", () => {
  studio.manifest.value = makeXlManifest();
  const options = { prompt2: "in oil", originalSize: [512, 768], cropsCoordsTopLeft: [0, 8] } as const;
  restore(studio, restored({ ...options, targetSize: null }));
  expect(studio.request.others.value).toEqual(options);
});

test("a preset changes what it names: a restored hires fix, clip skip and padding stay", () => {
  const twice = { width: 48, height: 32, chunks: 1, functions: {} };
  studio.manifest.value = makeManifest(undefined, { variants: [twice] });
  restore(studio, restored({ hiresScale: 2, clipSkip: 1, strength: 0.6, paddingMaskCrop: 48 }));
  usePreset(studio, builtIn("fine", { steps: 20, guidance_scale: 3 }));
  expect([studio.request.steps.value, studio.request.guidance.value]).toEqual([40, 3]);
  expect(studio.request.others.value).toEqual({ hiresScale: 2, clipSkip: 1 });
  expect([studio.request.onlyMasked.value, studio.request.maskPadding.value]).toEqual([true, 48]);
  usePreset(studio, { clipSkip: 0, eta: 0.5 });
  expect(studio.request.others.value).toEqual({ hiresScale: 2, eta: 0.5 });
});

test("a preset that keeps a padding around the mask draws only the masked part", () => {
  studio.request.onlyMasked.value = true;
  const { paddingMaskCrop } = optionsOf(studio);
  studio.request.onlyMasked.value = false;
  usePreset(studio, { paddingMaskCrop });
  expect(studio.request.onlyMasked.value).toBe(true);
});

test("presets follow the bundle, and few steps are not halved", () => {
  const steps = (defaults: { steps: number; guidance_scale: number }) =>
    (["quick", "standard", "fine"] as const).map((name) => builtIn(name, defaults).numInferenceSteps);
  expect(steps({ steps: 25, guidance_scale: 7.5 })).toEqual([13, 25, 50]);
  expect(steps({ steps: 4, guidance_scale: 1 })).toEqual([4, 4, 8]);
});

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { noticesOf } from "../../src/engine/option_pairs";
import type { GenerateRequest } from "../../src/engine/request";
import { resolve } from "../../src/engine/resolve";
import { descriptionsFromJson } from "../../src/engine/samplers/description";
import { FILES, makeManifest } from "./sample_bundle";

// Python's tests read the same file: `pixel` stands for a picture, a number of embeds for so many chunks.
const file = new URL("../../../tests/fixtures/bad_pairs.json", import.meta.url);
const BAD_PAIRS: [Record<string, unknown>, string][] = JSON.parse(readFileSync(file, "utf8"));
const CHUNK = 5;
const pixel = { width: 1, height: 1, data: new Uint8ClampedArray(4) };
const samplers = descriptionsFromJson(FILES["samplers.json"], "samplers.json");

function requestOf(options: Record<string, unknown>): GenerateRequest {
  const entries = Object.entries(options).map(([name, value]) => {
    const camel = name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
    if (name.endsWith("embeds")) return [camel, new Float32Array(CHUNK * (value as number))];
    return [camel, value === "pixel" ? pixel : value];
  });
  return { prompt: "gold", controlImage: pixel, ...Object.fromEntries(entries) };
}
const settingsOf = (options: Record<string, unknown>) => resolve(requestOf(options), makeManifest(), samplers);

test.each(BAD_PAIRS)("%o is refused", (options, complaint) => {
  expect(() => settingsOf(options)).toThrow(complaint);
});

test("an option beside the one that it needs is kept", () => {
  const repaint = { image: "pixel", mask_image: "pixel" };
  expect(settingsOf({ image: "pixel", strength: 0.5 }).strength).toBe(0.5);
  expect(settingsOf({ ...repaint, mask_blur: 4 }).maskBlur).toBe(4);
  expect(settingsOf({ ...repaint, padding_mask_crop: 8 }).paddingMaskCrop).toBe(8);
  expect(settingsOf({ ...repaint, apply_overlay: false }).applyOverlay).toBe(false);
  expect(settingsOf({ prompt: "", prompt_embeds: 1, clip_skip: 1 }).clipSkip).toBe(1); // the negative prompt is a text
});

test.each([
  [1, true],
  [0, true],
  [1.5, false],
])("a negative prompt, or a rescaling, with a guidance scale of %s is told: %s", (guidance_scale, told) => {
  const settings = settingsOf({ negative_prompt: "navy", guidance_scale });
  const notices = noticesOf(settings, requestOf({ negative_prompt_embeds: 1 }), makeManifest());
  const names = ["negative prompt", "negative prompt embeds"];
  expect(notices.map(({ text }) => text)).toEqual(
    told ? names.map((name) => `${name}: has no effect, guidance is off`) : [],
  );
  const [rescale] = noticesOf(settingsOf({ guidance_scale, guidance_rescale: 0.7 }), requestOf({}), makeManifest());
  expect(rescale?.text).toBe(told ? "guidance rescale: has no effect, guidance is off" : undefined);
  expect(noticesOf(settingsOf({ guidance_scale }), requestOf({}), makeManifest())).toEqual([]);
});

test.each([
  ["ddpm", true],
  ["ddim", false],
])("an eta with the sampler %s is told: %s", (sampler, told) => {
  const notices = noticesOf(settingsOf({ eta: 0.5, sampler }), requestOf({}), makeManifest());
  expect(notices.map(({ text }) => text)).toEqual(
    told ? ["eta: has no effect, only the samplers ddim and tcd read it"] : [],
  );
});

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { DRAWING } from "../../src/engine/constants";
import { parseManifest } from "../../src/engine/manifest";
import {
  checkCanDraw,
  drawingComponents,
  inpaints,
  maxChunks,
  residuals,
  sizes,
  textLayers,
} from "../../src/engine/model_traits";
import { LINES, makeInpaintingManifest, makeManifest, manifestBytes } from "./sample_bundle";

type Json = { [key: string | number]: unknown };

interface Golden {
  readonly sound: Json;
  readonly bad: { name: string; place: string[]; value?: unknown; remove?: true; subject: string; wanted: string }[];
}

const file = new URL("../../../tests/fixtures/bad_manifests.json", import.meta.url);
const golden: Golden = JSON.parse(readFileSync(file, "utf8"));
const parse = (value: unknown) => parseManifest(manifestBytes(value));
const sound = makeManifest();

test("a sound manifest is read as it is", () => {
  expect(parse(sound)).toEqual(sound);
});

test("a ControlNet pools its residuals only if the manifest says so", () => {
  const { name, control_embedding, controlnet } = LINES;
  expect(parse({ ...sound, controlnets: [{ name, control_embedding, controlnet }] })).toEqual(sound);
});

test("two ControlNets of one name are refused", () => {
  expect(() => parse({ ...sound, controlnets: [LINES, LINES] })).toThrow(
    "manifest.json: controlnets: got lines, lines, wanted a name of its own for each;",
  );
});

test("a bundle of several sizes and longer prompts says so", () => {
  const { inputs, outputs } = sound.components.unet;
  const functions = { unet: { function: "unet_32x16_2_chunks", inputs, outputs } };
  const variants = [
    { height: 16, width: 24, chunks: 2, functions },
    { height: 16, width: 32, chunks: 2, functions },
  ];
  const several = parse({ ...sound, variants });
  expect(sizes(several)).toEqual([
    [16, 24],
    [16, 32],
  ]);
  expect([maxChunks(several), maxChunks(sound), textLayers(sound)]).toEqual([2, 1, 3]);
  const { variants: _, ...before } = sound;
  expect(parse(before)).toEqual(sound);
  expect(() => parse({ ...sound, variants: [{ ...variants[0], functions: { lost: functions.unet } }] })).toThrow(
    "manifest.json: variants: 24x16, 2 chunks: got lost, no component's function, wanted components' functions;",
  );
});

test("the residuals are the UNet's inputs after its other ones", () => {
  expect(residuals(makeInpaintingManifest()).map(({ name }) => name)).toEqual(["mid_residual"]);
});

test("text that is not JSON is refused", () => {
  expect(() => parseManifest(new TextEncoder().encode("<html>"))).toThrow(/^manifest.json: got text that is not JSON/);
});

describe("a bad manifest is refused as in Python", () => {
  test("whose sound one is sound", () => {
    expect(parse(golden.sound)).toEqual(golden.sound);
  });

  // tests/bundle/test_manifest.py reads the same file.
  test.each(golden.bad)("$name", ({ place, value, remove, subject, wanted }) => {
    const changed = structuredClone(golden.sound);
    const path = place.slice(0, -1);
    const key = place[place.length - 1];
    const parent = path.reduce<Json>((inner, step) => inner[step] as Json, changed);
    if (remove) delete parent[key];
    else parent[key] = value;
    expect(() => parse(changed)).toThrow(expect.objectContaining({ subject, wanted }));
  });
});

const withSample = (channels: number) => {
  const sample = { name: "sample", shape: [1, channels, 2, 3], dtype: "float32" };
  return makeManifest(undefined, {
    components: { ...sound.components, unet: { ...sound.components.unet, inputs: [sample] } },
  });
};

test("a bundle of some components cannot draw", () => {
  const { text_encoder, unet } = sound.components;
  expect(() => checkCanDraw(makeManifest(undefined, { components: { text_encoder, unet } }), "x")).toThrow(
    "x: got no control_embedding, controlnet, vae_decoder, wanted",
  );
});

test("a UNet of another kind cannot draw", () => {
  const complaint =
    "x: unet: got a sample of [1, 5, 2, 3], wanted 4 channels, the latents, or an inpainting model's 9;";
  expect(() => checkCanDraw(withSample(5), "x")).toThrow(complaint);
});

test("an inpainting bundle cannot draw without the encoder", () => {
  expect(() => checkCanDraw(withSample(9), "x")).toThrow("x: got no vae_encoder, wanted");
});

test("a whole bundle can draw", () => {
  checkCanDraw(withSample(4), "x");
  checkCanDraw(makeInpaintingManifest(), "x");
});

test("an inpainting model's pictures take the encoder as well", () => {
  expect(inpaints(makeInpaintingManifest())).toBe(true);
  expect(drawingComponents(makeInpaintingManifest())).toEqual([...DRAWING, "vae_encoder"]);
  expect(inpaints(withSample(4))).toBe(false);
  expect(drawingComponents(withSample(4))).toEqual(DRAWING);
});

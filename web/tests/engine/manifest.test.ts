import { expect, test } from "vitest";
import { COMPONENTS } from "../../src/engine/components";
import { checkCanDraw, drawingComponents, inpaints, isInside, parseManifest } from "../../src/engine/manifest";
import { keptParams, MEMORY, makeInpaintingManifest, makeManifest, manifestBytes } from "./sample_bundle";

const parse = (value: unknown) => parseManifest(manifestBytes(value));
const sound = makeManifest();
const record = sound.params.records[0];
const withRecords = (...records: unknown[]) => ({ ...sound, params: { ...sound.params, records } });

test("a sound manifest is read as it is", () => {
  expect(parse(sound)).toEqual(sound);
});

test("another format version is refused before anything else", () => {
  expect(() => parse({ format_version: 1 })).toThrow("manifest.json: format_version: got 1, wanted 2;");
});

test("a bundle from before residuals were pooled pools none", () => {
  const { global_pool_conditions: _, ...model } = sound.model;
  expect(parse({ ...sound, model }).model).toEqual(sound.model);
});

test("what is no JSON is refused", () => {
  expect(() => parseManifest(new TextEncoder().encode("<html>"))).toThrow(/^manifest.json: got no JSON/);
});

test("a missing key is named", () => {
  const { defaults: _, ...rest } = sound;
  expect(() => parse(rest)).toThrow("manifest.json: got no defaults, wanted every key of the format");
});

test("an unknown key is named", () => {
  expect(() => parse({ ...sound, extra: 1 })).toThrow("manifest.json: got unknown extra");
});

test("a field of the wrong type is named with its place", () => {
  expect(() => parse(withRecords({ ...record, shape: ["2"] }))).toThrow(
    'manifest.json.params.records[0].shape[0]: got "2", wanted an integer',
  );
});

test.each([
  ["a record that overlaps", withRecords(record, { ...record, name: "b" }), "records do not overlap"],
  ["a record twice", withRecords(record, { ...record, byte_offset: 4 }), "two records"],
  ["a record past its shard", withRecords({ ...record, byte_offset: 8 }), "an end at byte 12"],
  ["a record in no shard", withRecords({ ...record, shard: 1 }), "shard 1"],
  ["a record that is not aligned", withRecords({ ...record, byte_offset: 2 }), "a multiple of 4"],
  ["a record of the wrong size", withRecords({ ...record, bytes: 8 }), "4 bytes for float16[2]"],
  ["a record of an unknown dtype", withRecords({ ...record, dtype: "int4" }), "int4[2]"],
  ["no library", { ...sound, libraries: [] }, "libraries: got none"],
  ["a library that is not listed", { ...sound, files: sound.files.slice(1) }, "which files does not list"],
  ["a param without record", withRecords(), "unet.weight, which has no record"],
  ["a file twice", { ...sound, files: [...sound.files, sound.files[0]] }, "circles-float32.wasm twice"],
  ["a file outside", { ...sound, files: [...sound.files, { ...sound.files[0], path: "../x" }] }, '"../x"'],
  ["a short hash", { ...sound, files: [...sound.files, { path: "x", bytes: 1, sha256: "ab" }] }, "64 hex digits"],
  ["a library without memory plan", { ...sound, memory: {} }, "memory: got none for circles-float32.wasm"],
  [
    "a plan that keeps more params than there are",
    {
      ...sound,
      memory: { x: { ...MEMORY, reduced: { ...MEMORY.reduced, kept_params: keptParams(2) } }, ...sound.memory },
    },
    "memory: x: got 2 params kept of text_encoder, wanted 0 to 1",
  ],
  [
    "a plan without a component",
    { ...sound, memory: { x: { ...MEMORY, resident: { ...MEMORY.resident, kept_params: {} } }, ...sound.memory } },
    "memory: x: got -1 params kept of text_encoder",
  ],
  ["a preview of another shape", { ...sound, latent_preview: { weight: [[1]], bias: [0] } }, "weight [3, 4]"],
])("%s is refused", (_, manifest, complaint) => {
  expect(() => parse(manifest)).toThrow(complaint);
});

const withSample = (channels: number) => {
  const sample = { name: "sample", shape: [1, channels, 2, 3], dtype: "float32" };
  return makeManifest(undefined, {
    components: { ...sound.components, unet: { inputs: [sample], outputs: [], params: [] } },
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

test("an inpainting bundle from before the scaling factor was written cannot draw", () => {
  const { scaling_factor: _, ...model } = sound.model;
  const old = { ...makeInpaintingManifest(), model: parse({ ...sound, model }).model };
  expect(() => checkCanDraw(old, "x")).toThrow("x: scaling_factor: got 0, wanted the VAE's, for an inpainting model;");
});

test("a whole bundle can draw", () => {
  checkCanDraw(withSample(4), "x");
  checkCanDraw(makeInpaintingManifest(), "x");
});

test("an inpainting model's pictures take the encoder as well", () => {
  expect(inpaints(makeInpaintingManifest())).toBe(true);
  expect(drawingComponents(makeInpaintingManifest())).toEqual([...COMPONENTS, "vae_encoder"]);
  expect(inpaints(withSample(4))).toBe(false);
  expect(drawingComponents(withSample(4))).toEqual(COMPONENTS);
});

test("paths that leave the folder are told from those that do not", () => {
  expect(["a.bin", "params/00.bin", "..a"].map(isInside)).toEqual([true, true, true]);
  expect(["", "/a", "a/../b", "a//b", "./a", "a\\b", "c:a"].some(isInside)).toBe(false);
});

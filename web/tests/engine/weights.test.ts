import { expect, test } from "vitest";
import { DRAWING } from "../../src/engine/constants";
import type { Manifest } from "../../src/engine/manifest";
import { drawingComponents } from "../../src/engine/model_traits";
import { decodeRecord, kindOf, neededShards } from "../../src/engine/weights";
import { makeInpaintingManifest, makeManifest } from "./sample_bundle";

const record = { name: "w", shape: [2], dtype: "float16", shard: 0, byte_offset: 4, bytes: 4 };
const shard = Uint8Array.of(9, 9, 9, 9, 0x00, 0x3c, 0x00, 0xc0); // 1 and -2 from byte 4 on

test("float16 is widened for a float32 library", () => {
  const { dtype, bytes } = decodeRecord(shard, record, "float32");
  expect(dtype).toBe("float32");
  expect([...new Float32Array(bytes.slice().buffer)]).toEqual([1, -2]);
});

test("float16 stays as it is for a float16 library", () => {
  expect(decodeRecord(shard, record, "float16")).toEqual({ dtype: "float16", bytes: shard.slice(4) });
});

test("what is not float16 stays as it is", () => {
  const decoded = decodeRecord(shard, { ...record, dtype: "int32", shape: [1] }, "float32");
  expect(decoded).toEqual({ dtype: "int32", bytes: shard.slice(4) });
});

function manifestWith(vaeEncoderParam: string): Manifest {
  const manifest = makeManifest();
  const records = [
    { ...record, name: "unet.weight", shard: 0 },
    { ...record, name: vaeEncoderParam, shard: 1 },
  ];
  return {
    ...manifest,
    components: {
      ...manifest.components,
      vae_encoder: { function: "vae_encoder", inputs: [], outputs: [], params: [vaeEncoderParam] },
    },
    params: { ...manifest.params, shards: ["params/00.bin", "params/01.bin"], records },
  };
}

const shardsOf = (manifest: Manifest, components: readonly string[], isHere?: (param: string) => boolean) =>
  [...neededShards(manifest, components, isHere)].map(([shard, records]) => [
    shard,
    ...records.map(({ name }) => name),
  ]);

test("a shard that only the VAE's encoder needs is fetched for the encoder alone", () => {
  const manifest = manifestWith("vae_encoder.weight");
  expect(shardsOf(manifest, drawingComponents(manifest))).toEqual([["params/00.bin", "unet.weight"]]);
  expect(shardsOf(manifest, ["vae_encoder"])).toEqual([["params/01.bin", "vae_encoder.weight"]]);
});

test("what is here is not fetched again", () => {
  const manifest = manifestWith("vae_encoder.weight");
  const both = [...drawingComponents(manifest), "vae_encoder"];
  expect(shardsOf(manifest, both, (param) => param === "unet.weight")).toEqual([
    ["params/01.bin", "vae_encoder.weight"],
  ]);
  expect(shardsOf(manifest, both, () => true)).toEqual([]);
});

test("of a merged weight, what it is made of is fetched, unless it is here", () => {
  const plain = manifestWith("up");
  const merged = [{ name: "merged", shape: [2], function: "merge", sources: ["unet.weight", "up"] }];
  const components = { ...plain.components, controlnet: { ...plain.components.controlnet, params: ["merged"] } };
  const manifest = { ...plain, components, params: { ...plain.params, merged } };
  const wanted = [
    ["params/00.bin", "unet.weight"],
    ["params/01.bin", "up"],
  ];
  expect(shardsOf(manifest, ["controlnet"])).toEqual(wanted);
  expect(shardsOf(manifest, ["controlnet"], (param) => param === "unet.weight")).toEqual(wanted.slice(1));
  expect(shardsOf(manifest, ["controlnet"], (param) => param === "merged")).toEqual([]);
});

test("the number of a ControlNet is no part of its kind", () => {
  expect(["controlnet_2", "control_embedding_12", "unet"].map(kindOf)).toEqual([
    "controlnet",
    "control_embedding",
    "unet",
  ]);
});

test("an inpainting model needs it", () => {
  const inpainting = makeInpaintingManifest();
  const needed = manifestWith("vae_encoder.weight");
  const components = { ...needed.components, unet: inpainting.components.unet };
  const manifest = { ...needed, components };
  expect(shardsOf(manifest, drawingComponents(manifest))).toHaveLength(2);
});

test("a bundle without ControlNet is refused", () => {
  const manifest = makeManifest();
  const { controlnet: _, ...components } = manifest.components;
  expect(() => neededShards({ ...manifest, components }, DRAWING)).toThrow(
    "bundle: got no controlnet, wanted text_encoder, control_embedding, controlnet, unet, vae_decoder; build the bundle again",
  );
});

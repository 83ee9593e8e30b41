import { expect, test } from "vitest";
import type { Manifest, Variant } from "../../src/engine/manifest";
import { applyVariant, compiledSizes, forSize, functionFor } from "../../src/engine/variant";
import { HEIGHT, makeManifest, VAE_ENCODER, WIDTH } from "./sample_bundle";

const [H, W] = [HEIGHT / 8, WIDTH / 8];
const tensor = (name: string, ...shape: number[]) => ({
  name,
  shape,
  dtype: name === "context" ? "compute" : "float32",
});

/** The bundle's own size, the same for prompts of two chunks, and the size on its side, of as many pixels. */
function variants(): Manifest {
  const { components } = makeManifest();
  const unet = (height: number, width: number, chunks: number) => ({
    function: `unet_${width}x${height}_${chunks}`,
    inputs: [tensor("sample", 1, 4, height, width), tensor("context", 1, 5 * chunks, 1)],
    outputs: [tensor("output", 1, 4, height, width)],
  });
  const decoder = (height: number, width: number) => ({
    function: `vae_decoder_${width}x${height}`,
    inputs: [tensor("latents", 1, 4, height, width)],
    outputs: [],
  });
  const longer: Variant = { height: HEIGHT, width: WIDTH, chunks: 2, functions: { unet: unet(H, W, 2) } };
  const functions = { unet: unet(W, H, 1), vae_decoder: decoder(W, H) };
  const turned: Variant = { height: WIDTH, width: HEIGHT, chunks: 1, functions };
  const own = {
    unet: { ...components.unet, ...unet(H, W, 1), function: "unet" },
    vae_decoder: { ...components.vae_decoder, ...decoder(H, W), function: "vae_decoder" },
  };
  return makeManifest(undefined, { components: { ...components, ...own }, variants: [longer, turned] });
}

test("arrays on the host choose by their length, tensors on the device by their shape", () => {
  const named = (tokens: number) => functionFor(variants(), "unet", [4 * H * W, [1, tokens, 1]]).function;
  expect([named(5), named(10)]).toEqual(["unet", "unet_3x2_2"]);
});

test("of two sizes with as many pixels, the picture's size chooses", () => {
  const named = (height: number, width: number) =>
    functionFor(variants(), "vae_decoder", [4 * H * W], { height, width }).function;
  expect([named(HEIGHT, WIDTH), named(WIDTH, HEIGHT)]).toEqual(["vae_decoder", "vae_decoder_2x3"]);
  expect(functionFor(variants(), "vae_decoder", [4 * H * W]).function).toBe("vae_decoder");
});

test("a component without a function for the inputs has its own, which refuses them", () => {
  expect(functionFor(variants(), "vae_decoder", [7]).function).toBe("vae_decoder");
  expect(functionFor(variants(), "text_encoder", [5, 3]).function).toBe("text_encoder");
});

test("a variant replaces functions and keeps params", () => {
  const manifest = variants();
  const components = applyVariant(manifest.variants[1], manifest.components);
  expect(components.unet.function).toBe("unet_2x3_1");
  expect(components.unet.params).toEqual(manifest.components.unet.params);
  expect(components.text_encoder).toEqual(manifest.components.text_encoder);
});

test("a manifest for another size has that size's components", () => {
  const manifest = variants();
  const turned = forSize(manifest, { height: WIDTH, width: HEIGHT });
  expect([turned.model.height, turned.model.width, turned.components.unet.function]).toEqual([24, 16, "unet_2x3_1"]);
  expect(forSize(manifest, { height: HEIGHT, width: WIDTH })).toBe(manifest);
});

test("a component is compiled for the sizes of the variants that have a function for it", () => {
  const manifest = variants();
  const [own, turned] = [
    { height: HEIGHT, width: WIDTH },
    { height: WIDTH, width: HEIGHT },
  ];
  expect(compiledSizes(manifest, "vae_decoder")).toEqual([own, turned]);
  const tile = { ...VAE_ENCODER, inputs: [tensor("image", 1, 3, 8, 16)] };
  const tiled = { ...manifest, components: { ...manifest.components, vae_encoder: tile } };
  expect(compiledSizes(tiled, "vae_encoder")).toEqual([{ height: 8, width: 16 }]);
});

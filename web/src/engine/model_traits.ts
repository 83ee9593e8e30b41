/** What a manifest tells of its model: sizes, lengths, and which kind of UNet, text encoders and ControlNets it has. */

import { DRAWING, INPAINTING_CHANNELS } from "./constants.ts";
import { UserError } from "./errors.ts";
import type { ComponentSpec, Manifest } from "./manifest.ts";

/** Height and width of the pictures that the bundle draws, in pixels; the first is the default. */
export function sizes({ model, variants }: Manifest): (readonly [height: number, width: number])[] {
  const all = [model, ...variants].map(({ height, width }) => [height, width] as const);
  return [...new Map(all.map((size) => [size.join("x"), size])).values()];
}

/** The largest number of chunks of a prompt. */
export function maxChunks({ variants }: Manifest): number {
  return Math.max(1, ...variants.map(({ chunks }) => chunks));
}

/** Return whether the UNet reads the guidance scale: guidance then takes one call of the UNet instead of two. */
export function embedsGuidance({ components }: Manifest): boolean {
  return components.unet.inputs.some((tensor) => tensor.name === "guidance_scale");
}

/** The ControlNets' outputs as the UNet reads them: one for each skip connection, then the middle block's. */
export function residuals({ components }: Manifest): ComponentSpec["outputs"] {
  return components.unet.inputs.filter((tensor) => tensor.name.includes("residual"));
}

/** The number of the text encoder's layers that lead to the context; of two, of the one with fewer. */
export function textLayers(parsed: Manifest): number {
  const encoders = ["text_encoder", "text_encoder_2"].filter((name) => name in parsed.components);
  return Math.min(...encoders.map((name) => layersOf(parsed, name)));
}

/** The number of a text encoder's layers that lead to its context. */
export function layersOf({ components }: Manifest, textEncoder: string): number {
  const [, layerGates] = components[textEncoder].inputs;
  return layerGates.shape[0];
}

/** Return whether this is Stable Diffusion XL: UNet and ControlNets read a pooled output and sizes of pictures. */
export function readsTimeIds({ components }: Manifest): boolean {
  return "text_encoder_2" in components;
}

/** Throws UserError if a component that drawing needs is missing, or the UNet has inputs that the pipeline lacks. */
export function checkCanDraw(parsed: Manifest, where: string): void {
  const drawing = drawingComponents(parsed);
  const missing = drawing.filter((name) => parsed.components[name] === undefined);
  if (missing.length) {
    const remedy = "build the bundle again without --component";
    throw new UserError(where, `no ${missing.join(", ")}`, drawing.join(", "), remedy, "bad-bundle");
  }
  const sample = sampleShape(parsed);
  const { latent_channels } = parsed.model;
  if (sample.length !== 4 || ![latent_channels, INPAINTING_CHANNELS].includes(sample[1])) {
    throw new UserError(
      `${where}: unet`,
      `a sample of [${sample.join(", ")}]`,
      `${latent_channels} channels, the latents, or an inpainting model's ${INPAINTING_CHANNELS}`,
      "call the components yourself: the pipeline supports these models only",
      "bad-bundle",
    );
  }
}

/** Return whether the UNet reads a mask and a masked picture: the pipeline then needs both. */
export function inpaints(parsed: Manifest): boolean {
  return sampleShape(parsed)[1] === INPAINTING_CHANNELS;
}

/** List the components that drawing needs: with a second text encoder, and an inpainting model's VAE encoder. */
export function drawingComponents(parsed: Manifest): readonly string[] {
  const second = readsTimeIds(parsed) ? ["text_encoder_2"] : [];
  return [...DRAWING, ...second, ...(inpaints(parsed) ? ["vae_encoder"] : [])];
}

function sampleShape({ components }: Manifest): readonly number[] {
  return components.unet?.inputs.find((tensor) => tensor.name === "sample")?.shape ?? [];
}

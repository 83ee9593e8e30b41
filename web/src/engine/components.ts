/** The interface between pipeline and engine: a bundle's components as functions. */

import type { ControlNetEntry } from "./manifest.ts";
import type { LoadOptions } from "./progress.ts";
import type { Size } from "./size.ts";

/** Numbers on the host, in C order. */
export type FloatArray = Float32Array<ArrayBuffer>;

/** A value on the device, which one component returns and others read. The caller that receives it disposes it once. */
export interface OnDevice {
  dispose(): void;
}

/** An encoded prompt: compute dtype [1, T, D]; of Stable Diffusion XL also its pooled output, [1, P]. */
export interface Context extends OnDevice {
  /** The sizes of pictures that Stable Diffusion XL reads besides: float32 [1, 6]. */
  timeIds?: FloatArray;
  /** Copy it to the host; float16 is widened. */
  read(): Promise<FloatArray[]>;
}

/** An embedded control image, which its ControlNet reads at every step: compute dtype [1, C, h, w]. */
export interface ControlEmbedding extends OnDevice {
  /** Which one reads it. */
  readonly controlnet: ControlNetEntry;
  /** Copy it to the host; float16 is widened. */
  read(): Promise<FloatArray[]>;
}

/** The ControlNets' outputs: the UNet adds them to its skip connections and its middle block. */
export interface Residuals extends OnDevice {
  /** Copy them to the host, one array each; float16 is widened. */
  read(): Promise<FloatArray[]>;
}

/** What a whole UNet leaves for a shallow one: compute dtype [1, C, h, w]. */
export type DeepFeature = OnDevice;

/**
 * A bundle's components as functions. The manifest states the shapes; the batch size is 1. The device runs calls in the
 * order in which they are made. A call that returns numbers waits for the device. Any other call only queues its work.
 * `size` is the picture's, by default that of the bundle's first size.
 */
export interface Components {
  /** Make components ready that not every picture needs: further ControlNets, the VAE's encoder. Others are ready. */
  require(components: readonly string[], options?: LoadOptions): Promise<void>;
  /** int32 [1, T] -> context, without the text encoder's last `clipSkip` layers, 0 .. L - 1; by default with all. */
  textEncoder(tokenIds: Int32Array<ArrayBuffer>, clipSkip?: number): Promise<Context>;
  /**
   * int32 [1, T], the position of its first end token, and the first text encoder's context, which the caller still disposes
   * -> the context of both, and the pooled output.
   */
  textEncoder2(
    tokenIds: Int32Array<ArrayBuffer>,
    endPosition: number,
    first: Context,
    clipSkip?: number,
  ): Promise<Context>;
  /**
   * Put a context that the host computed on the device: float32 [1, T, D], and a pooled output, [1, P].
   *
   * `width` is D; by default that of the context that the UNet reads.
   */
  context(values: FloatArray, textEmbeds?: FloatArray, width?: number): Promise<Context>;
  /** The width of the first text encoder's context. */
  firstWidth(): number;
  /** float32 control image [1, 3, H, W] in 0..1 -> its embedding. */
  controlEmbedding(controlImage: FloatArray, controlnet: ControlNetEntry, size?: Size): Promise<ControlEmbedding>;
  /** float32 sample [1, C, h, w] -> residuals, each already multiplied by its own scale. */
  controlnet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    control: ControlEmbedding,
    conditioningScales: readonly number[],
  ): Promise<Residuals>;
  /** Add the residuals of two ControlNets. */
  residualSum(one: Residuals, other: Residuals): Promise<Residuals>;
  /** Return residuals of zeros, with which the UNet computes the same as without a ControlNet. */
  zeroResiduals(size?: Size): Promise<Residuals>;
  /**
   * float32 sample [1, C, h, w] -> model output, float32 of the same shape; an inpainting model's sample has 9 channels. A
   * UNet that embeds the guidance scale reads it; others do not.
   */
  unet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<FloatArray>;
  /** Call the UNet and keep its deep feature; undefined of a bundle without a shallow UNet. */
  unetAndFeature(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<{ output: FloatArray; feature: DeepFeature | undefined }>;
  /**
   * Return the UNet's output with the deep feature of another step. Of the residuals, it reads those of the skip connections
   * that it computes.
   */
  unetShallow(
    sample: FloatArray,
    timestep: number,
    context: Context,
    feature: DeepFeature,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<FloatArray>;
  /** float32 scaled latents [1, C, h, w] -> image, float32 [1, 3, H, W], about -1..1. */
  vaeDecoder(latents: FloatArray, size?: Size): Promise<FloatArray>;
  /** Do the same as `vaeDecoder`, faster and less exactly. Only some bundles have this component. */
  previewDecoder(latents: FloatArray, size?: Size): Promise<FloatArray>;
  /**
   * float32 image [1, 3, H, W] in -1..1 -> unscaled mean and log-variance, float32 [1, 2 C, h, w]; of a tiny autoencoder
   * latents, float32 [1, C, h, w].
   */
  vaeEncoder(image: FloatArray, size?: Size): Promise<FloatArray>;
}

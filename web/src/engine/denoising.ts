/**
 * The denoising loop: from noise, or a noised picture, to latents.
 *
 * Twin: mlc_controlnet/runtime/denoising.py, the same functions in the same order.
 */

import type { Components, Context, DeepFeature, FloatArray, Residuals } from "./components.ts";
import { affects, type Control, isActive } from "./controls.ts";
import { DeepCache } from "./deepcache.ts";
import { UserError } from "./errors.ts";
import { blendLatents } from "./latents.ts";
import type { LatentPreview, Manifest } from "./manifest.ts";
import { FIRST_STEP_STREAM, standardNormal } from "./noise.ts";
import type { Image } from "./picture.ts";
import type { Settings } from "./request.ts";
import { advance, INITIAL_STATE, type Row, type Schedule } from "./samplers/row.ts";

/** The part of a picture that a four-channel UNet keeps: after every step it is put back, noised as the step is. */
export interface Kept {
  /** float32 [1, C, h, w]: of the picture. */
  readonly latents: FloatArray;
  /** float32 [1, C, h, w], standard normal: the noise that the drawing starts from. */
  readonly noise: FloatArray;
  /** float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0. */
  readonly mask: FloatArray;
}

/** The inputs that are the same for every step of the denoising loop. */
export interface Conditions {
  /** The context of the prompt. With guidance, the negative prompt's context comes first. */
  readonly contexts: readonly Context[];
  readonly controls: readonly Control[];
  /** The channels after the latents in an inpainting UNet's sample: float32 [1, _, h, w] each. */
  readonly extraChannels: readonly FloatArray[];
  /** Of a picture that a four-channel UNet repaints in part. */
  readonly kept?: Kept;
}

/** The state after one step of the denoising loop. */
export interface Step {
  /** 0 .. count - 1 */
  readonly index: number;
  readonly count: number;
  readonly timestep: number;
  /** float32 [1, C, h, w]: the sample after this step. */
  readonly x: FloatArray;
  /** float32 [1, C, h, w]: the final latents as this step predicts them. */
  readonly x0: FloatArray;
  /** x0 as a small picture, w x h, one pixel per latent cell; computed by this call, without the VAE. */
  preview(): Image;
  /** x0 as a whole picture, W x H, by the preview decoder, if the call asks for it and the bundle has one. */
  readonly decodedPreview?: Image;
}

/**
 * The denoising loop. It yields after every step, so progress, preview and cancelling belong to the caller.
 *
 * Latents that the caller passes to `next` replace the sample after the step. The noise of step i is stream
 * FIRST_STEP_STREAM + i of the seed. With `decodesPreviews`, each step decodes what it predicts.
 */
export async function* denoise(
  components: Components,
  manifest: Manifest,
  settings: Settings,
  schedule: Schedule,
  conditions: Conditions,
  x: FloatArray,
  decodesPreviews = false,
): AsyncGenerator<Step, void, FloatArray | undefined> {
  const { rows } = schedule;
  let state = INITIAL_STATE;
  let zeros: Promise<Residuals> | undefined; // made once per picture, if a step needs them
  const zeroResiduals = () => (zeros ??= components.zeroResiduals(settings));
  const cache = new DeepCache(settings.deepcacheInterval);
  try {
    for (const [index, row] of rows.entries()) {
      const scaledX = x.map((value) => value * row.inputScale);
      const active = conditions.controls.filter(({ unit }) => isActive(unit, index, rows.length));
      const sample = concatenate([scaledX, ...conditions.extraChannels]);
      const { contexts } = conditions;
      let outputs: FloatArray[];
      let read: readonly Residuals[];
      if (cache.isShallow(active)) {
        const predicted = await cache.predict(components, sample, row.timestep, contexts, settings.guidanceScale);
        outputs = predicted.outputs;
        read = predicted.residuals;
      } else {
        cache.dispose(); // before this step makes as much again
        const residuals = await control(components, scaledX, row.timestep, contexts, active, zeroResiduals);
        const step = await predict(components, sample, row.timestep, contexts, residuals, settings.guidanceScale);
        outputs = step.outputs;
        read = residuals.all;
        cache.keep(active, { residuals: residuals.all, made: residuals.made, features: step.features });
      }
      await checkOutputs(conditions, read, outputs, `step ${index + 1} of ${rows.length}`);
      cache.endStep();
      const m = guide(outputs, settings.guidanceScale, settings.guidanceRescale);
      const drawNoise = () => standardNormal(x.length, settings.seed, FIRST_STEP_STREAM + index);
      const advanced = advance(row, state, x, m, drawNoise);
      state = advanced.state;
      const { kept } = conditions;
      const next = kept === undefined ? advanced.x : putBack(advanced.x, kept, rows[index + 1]);
      const { x0 } = advanced;
      const preview = () => previewLatents(x0, manifest);
      const decoded = decodesPreviews ? { decodedPreview: await decodePreview(components, x0, settings) } : {};
      x = (yield { index, count: rows.length, timestep: row.timestep, x: next, x0, preview, ...decoded }) ?? next;
    }
  } finally {
    cache.dispose();
    (await zeros)?.dispose();
  }
}

/**
 * Classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m. `guidanceRescale` is the share of m
 * that gets the prompt's standard deviation (arXiv 2305.08891, section 3.4).
 */
export function guide(outputs: readonly FloatArray[], guidanceScale: number, guidanceRescale = 0): Float64Array {
  if (outputs.length === 1) return Float64Array.from(outputs[0]);
  const [negative, positive] = outputs;
  const guided = Float64Array.from(negative, (m, i) => m + guidanceScale * (positive[i] - m));
  const ofGuided = deviation(guided);
  if (guidanceRescale === 0 || ofGuided === 0) return guided;
  const factor = guidanceRescale * (deviation(Float64Array.from(positive)) / ofGuided) + (1 - guidanceRescale);
  return guided.map((m) => m * factor);
}

/** The standard deviation around the mean of all values. */
function deviation(values: Float64Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}

/** Return latents as they are at the start of a step, float32: diffusers' `scheduler.add_noise`. */
export function addNoise({ signalScale, noiseScale }: Row, latents: FloatArray, noise: FloatArray): FloatArray {
  return latents.map((value, i) => signalScale * value + noiseScale * noise[i]);
}

/** [3, H, W] in 0..1, clipped -> RGBA of 8 bits. */
export function toPicture(rgb: ArrayLike<number>, height: number, width: number): Image {
  const data = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let i = 0; i < height * width; i++) {
    for (let color = 0; color < 3; color++) data[4 * i + color] = 255 * rgb[color * height * width + i]; // rounds, clips
  }
  return { width, height, data };
}

/** Throws UserError if a component returned NaN or infinity. */
export function checkFinite(component: string, values: FloatArray, where: string): void {
  const broken = values.reduce((count, value) => count + Number(!Number.isFinite(value)), 0);
  if (broken) {
    throw new UserError(
      `${component}, ${where}`,
      `NaN or infinity in ${broken} of ${values.length} numbers`,
      "finite numbers",
      "try another seed; if the error remains, verify the bundle with python -m mlc_controlnet verify, " +
        "or use its float32 library",
      "not-finite",
    );
  }
}

/**
 * The residuals for each context: the sum of those ControlNets that affect it, or zeros. The caller disposes those that
 * were made for this step.
 */
async function control(
  components: Components,
  scaledX: FloatArray,
  timestep: number,
  contexts: readonly Context[],
  active: readonly Control[],
  zeroResiduals: () => Promise<Residuals>,
): Promise<{ all: readonly Residuals[]; made: readonly Residuals[] }> {
  const all: Residuals[] = [];
  const made: Residuals[] = [];
  try {
    for (const [i, context] of contexts.entries()) {
      const isNegative = i < contexts.length - 1;
      const calls = active
        .filter((one) => affects(one, isNegative))
        .map(({ embedding, unit }) => {
          return () => components.controlnet(scaledX, timestep, context, embedding, unit.residualScales);
        });
      const total = await sum(components, calls);
      if (total !== undefined) made.push(total);
      all.push(total ?? (await zeroResiduals()));
    }
    return { all, made };
  } catch (error) {
    for (const value of made) value.dispose();
    throw error;
  }
}

/** Add residuals; undefined if there are none. At most two sets are on the device at a time, and their sum. */
async function sum(
  components: Components,
  residuals: readonly (() => Promise<Residuals>)[],
): Promise<Residuals | undefined> {
  const held: Residuals[] = [];
  try {
    for (const make of residuals) {
      held.push(await make());
      if (held.length < 2) continue;
      const [total, one] = held;
      held.push(await components.residualSum(total, one));
      for (const added of held.splice(0, 2)) added.dispose();
    }
    return held[0];
  } catch (error) {
    for (const value of held) value.dispose();
    throw error;
  }
}

/**
 * The UNet's output for each context, float32 [1, C, h, w], and the deep features of a bundle with a shallow UNet. If it
 * fails, it disposes them and the residuals that were made for this step.
 */
async function predict(
  components: Components,
  sample: FloatArray,
  timestep: number,
  contexts: readonly Context[],
  residuals: { readonly all: readonly Residuals[]; readonly made: readonly Residuals[] },
  guidanceScale: number,
): Promise<{ outputs: FloatArray[]; features: DeepFeature[] }> {
  // One call of batch 2 would read the weights once, for two thirds more WGSL: docs/architecture.md has the figures.
  // All calls are queued before the first result is awaited, so that the device does not idle between them.
  const calls = contexts.map((context, i) =>
    components.unetAndFeature(sample, timestep, context, residuals.all[i], guidanceScale),
  );
  const settled = await Promise.allSettled(calls);
  const done = settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const features = done.flatMap(({ feature }) => (feature === undefined ? [] : [feature]));
  const failed = settled.find((result) => result.status === "rejected");
  if (failed === undefined) return { outputs: done.map(({ output }) => output), features };
  for (const value of [...residuals.made, ...features]) value.dispose();
  throw failed.reason;
}

/** Put the kept part of the picture back, noised for the following row; after the last row, without noise. */
function putBack(x: FloatArray, { latents, noise, mask }: Kept, following: Row | undefined): FloatArray {
  return blendLatents(x, following === undefined ? latents : addNoise(following, latents, noise), mask);
}

/** Throws UserError if an output is not finite. The error names the first component that returned such numbers. */
async function checkOutputs(
  { contexts, controls }: Conditions,
  residuals: readonly Residuals[],
  outputs: readonly FloatArray[],
  where: string,
): Promise<void> {
  for (const [i, output] of outputs.entries()) {
    if (output.every(Number.isFinite)) continue;
    // The inputs are copied to the host only now: to read them in every step would cost time.
    for (const values of await contexts[i].read()) checkFinite("text_encoder", values, where);
    for (const { embedding } of controls) {
      for (const values of await embedding.read()) checkFinite(embedding.controlnet.control_embedding, values, where);
    }
    const controlnets = controls.map(({ unit }) => unit.controlnet.controlnet).join(" + ");
    for (const values of await residuals[i].read()) checkFinite(controlnets, values, where);
    checkFinite("unet", output, where);
  }
}

async function decodePreview(components: Components, x0: FloatArray, { height, width }: Settings): Promise<Image> {
  const image = await components.previewDecoder(x0, { height, width }); // [1, 3, H, W]
  return toPicture(
    image.map((value) => value / 2 + 0.5),
    height,
    width,
  );
}

/** One pixel per latent cell: rgb (0..1) = weight @ x0 + bias. */
function previewLatents(x0: FloatArray, { model, latent_preview }: Manifest): Image {
  const [height, width] = [model.height / model.vae_scale_factor, model.width / model.vae_scale_factor];
  return toPicture(colorLatents(x0, height * width, latent_preview), height, width);
}

/** [C, h w] -> [3, h w] */
function colorLatents(x0: FloatArray, cells: number, { weight, bias }: LatentPreview): Float32Array {
  const rgb = new Float32Array(3 * cells);
  for (let color = 0; color < 3; color++) {
    for (let cell = 0; cell < cells; cell++) {
      rgb[color * cells + cell] = weight[color].reduce((total, w, c) => total + w * x0[c * cells + cell], bias[color]);
    }
  }
  return rgb;
}

function concatenate(parts: readonly FloatArray[]): FloatArray {
  const whole = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

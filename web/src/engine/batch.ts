/**
 * From the arguments of one call, with lists as diffusers takes them, to a request for each picture.
 *
 * Twin: mlc_controlnet/runtime/batch.py.
 */

import type { FloatArray } from "./components.ts";
import { MAX_IMAGES, MAX_SEED } from "./constants.ts";
import { UserError } from "./errors.ts";
import { type GenerateRequest, randomInteger } from "./request.ts";

/** A request for several pictures: those of the first prompt, then those of the second, and so on. */
export interface BatchRequest extends Omit<GenerateRequest, "prompt" | "negativePrompt" | "seed" | "latents"> {
  /** The text that describes a picture, or a list. */
  readonly prompt: string | readonly string[];
  /** One text for all prompts, or a list with one for each. */
  readonly negativePrompt?: string | readonly string[];
  /** How many pictures of each prompt. Default: 1. */
  readonly numImagesPerPrompt?: number;
  /** Picture i of one seed has the noise of seed + i. A list has a seed for each picture. Default: random. */
  readonly seed?: number | readonly number[];
  /** float32 [N, C, h, w], standard normal, in place of the seeds' noise. */
  readonly latents?: FloatArray;
}

/** Return the requests in diffusers' order. Throws UserError for lists of different lengths. */
export function oneRequestEach(batch: BatchRequest): GenerateRequest[] {
  const { prompt, negativePrompt, numImagesPerPrompt = 1, seed, latents, ...others } = batch;
  const prompts = asList(prompt);
  const negatives = negativePrompt == null ? [] : asList(negativePrompt);
  if (![0, 1, prompts.length].includes(negatives.length)) {
    const wanted = `one text, or ${prompts.length}, one for each prompt`;
    throw new UserError("negative prompt", `${negatives.length} texts`, wanted, "pass as many as prompts");
  }
  const count = prompts.length * numImagesPerPrompt;
  if (!Number.isInteger(numImagesPerPrompt) || count < 1 || count > MAX_IMAGES) {
    const got = `${numImagesPerPrompt} for ${prompts.length} prompts`;
    throw new UserError(
      "num images per prompt",
      got,
      `1 to ${MAX_IMAGES} pictures in one call`,
      "choose another number",
    );
  }
  const seeds = seedsOf(seed, count);
  const noises = split(latents, count);
  return Array.from({ length: count }, (_, i) => {
    const which = Math.floor(i / numImagesPerPrompt);
    const negative = negatives.length ? { negativePrompt: negatives[negatives.length > 1 ? which : 0] } : {};
    return { ...others, ...negative, prompt: prompts[which], seed: seeds[i], latents: noises[i] };
  });
}

/**
 * Return a seed for each of `count` pictures: seed, seed + 1, ..., or those of a list; random if there is none.
 *
 * Throws UserError for a list of another length or a seed out of range.
 */
export function seedsOf(seed: BatchRequest["seed"], count: number): readonly number[] {
  if (Array.isArray(seed)) {
    if (seed.length === count) return seed;
    throw new UserError("seed", `${seed.length} seeds`, `one, or ${count}, one for each picture`, "pass as many");
  }
  const first = (seed as number | undefined) ?? randomInteger(MAX_SEED - count + 1);
  if (Number.isSafeInteger(first) && first > MAX_SEED - count + 1) {
    throw new UserError("seed", String(first), `an integer from 0 to ${MAX_SEED - count + 1}`, "choose another seed");
  }
  return Array.from({ length: count }, (_, i) => first + i); // what is no seed is refused with the other options
}

function asList(texts: string | readonly string[]): readonly string[] {
  return Array.isArray(texts) ? texts : [texts as string];
}

/** Return the noise of each picture: [1, C, h, w] each. */
function split(latents: FloatArray | undefined, count: number): (FloatArray | undefined)[] {
  const each = (latents?.length ?? 0) / count;
  return Array.from({ length: count }, (_, i) => latents?.slice(i * each, (i + 1) * each));
}

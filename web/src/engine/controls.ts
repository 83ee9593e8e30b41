/**
 * ControlNets at work: which of a bundle's ControlNets a picture uses, and how strongly in each step.
 *
 * Every residual of a ControlNet has a scale of its own. Guess mode and the control modes are such scales. Some of them
 * also leave the negative prompt's half of classifier-free guidance without residuals.
 * Twin: mlc_controlnet/runtime/controls.py.
 */

import type { ControlEmbedding } from "./components.ts";
import type { ControlNetEntry } from "./manifest.ts";
import type { ControlMode } from "./option_checks.ts";
import { perControlnet, type Settings } from "./request.ts";

/** Stable Diffusion web UI's: a residual weighs so much less than the next deeper one. */
const SOFT_WEIGHT = 0.825;

/** One ControlNet in use: its settings, without its picture. */
export interface ControlUnit {
  readonly controlnet: ControlNetEntry;
  /** One number for each residual, from the finest skip connection to the middle block. */
  readonly residualScales: readonly number[];
  /** The share of the steps, 0 to 1, in which it is active. */
  readonly start: number;
  readonly end: number;
  /** Whether only the prompt's half of classifier-free guidance gets its residuals. */
  readonly promptOnly: boolean;
}

/** One ControlNet in use, with its picture. */
export interface Control {
  readonly unit: ControlUnit;
  readonly embedding: ControlEmbedding;
}

/** Return whether a ControlNet takes part in step `index` of `count`. A scale of 0 switches it off. */
export function isActive({ residualScales, start, end }: ControlUnit, index: number, count: number): boolean {
  const [begins, ends] = [index / count, (index + 1) / count];
  return residualScales.some(Boolean) && begins >= start && ends <= end;
}

/** Return whether a ControlNet affects the context of the negative prompt, or of the prompt. */
export function affects({ unit }: Control, isNegative: boolean): boolean {
  return !(isNegative && unit.promptOnly);
}

/**
 * Describe the ControlNets that `settings` names, in the order of their control images.
 *
 * `controlnets` are those of the bundle, and `residuals` is the number of residuals that a ControlNet returns.
 */
export function controlUnits(
  settings: Settings,
  controlnets: readonly ControlNetEntry[],
  residuals: number,
): ControlUnit[] {
  const byName = new Map(controlnets.map((controlnet) => [controlnet.name, controlnet]));
  const used = settings.controlnets.map((name) => byName.get(name) as ControlNetEntry);
  const scales = perControlnet(settings.controlnetConditioningScale, used.length);
  const starts = perControlnet(settings.controlGuidanceStart, used.length);
  const ends = perControlnet(settings.controlGuidanceEnd, used.length);
  const modes = perControlnet(settings.controlMode, used.length);
  return used.map((controlnet, i) => {
    const guesses = settings.guessMode && !controlnet.global_pool_conditions;
    const relative = guesses ? guessScales(residuals) : modeScales(modes[i], residuals);
    // As in diffusers, a ControlNet that pools its residuals affects the prompt's context only.
    const promptOnly = settings.guessMode || controlnet.global_pool_conditions || modes[i] === "control";
    const residualScales = relative.map((weight) => scales[i] * weight);
    return { controlnet, residualScales, start: starts[i], end: ends[i], promptOnly };
  });
}

/** Return diffusers' scales of guess mode: from 0.1 at the finest residual to 1 at the middle block, geometric. */
export function guessScales(residuals: number): number[] {
  return Array.from({ length: residuals }, (_, i) => 10 ** (i / Math.max(residuals - 1, 1) - 1));
}

/**
 * Return Stable Diffusion web UI's scales of a control mode: with `prompt` and `control`, 0.825 ** depth.
 *
 * depth counts from the middle block, which has 0, to the finest residual.
 */
export function modeScales(mode: ControlMode, residuals: number): number[] {
  const base = mode === "balanced" ? 1 : SOFT_WEIGHT;
  return Array.from({ length: residuals }, (_, i) => base ** (residuals - 1 - i));
}

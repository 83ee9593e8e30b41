/**
 * The checks of single options: each takes the option's name in words and a value.
 *
 * Twin: mlc_controlnet/runtime/option_checks.py.
 */

import { CONTROL_MODES, MAX_PIXELS, MAX_SEED, UPSCALE_MODES } from "./constants.ts";
import { checkOneOf, UserError } from "./errors.ts";
import type { UpscaleMode } from "./latents.ts";
import { PROMPT_SYNTAXES, type PromptSyntax } from "./prompt_syntax.ts";

/** Which matters more, prompt or control image, as in Stable Diffusion web UI. */
export type ControlMode = (typeof CONTROL_MODES)[number];

/** Two numbers of pixels, the vertical one first. */
export type Pair = readonly [number, number];

/** One value for all ControlNets, or a list with a value for each in use. */
export type OneOrEach<T> = T | readonly T[];

/** Return `value` if it is a string; throw UserError otherwise. */
export function checkText(subject: string, value: unknown): string {
  if (typeof value !== "string") {
    throw new UserError(subject, typeof value, "one string", "pass the text itself, one picture per call");
  }
  return value;
}

/** Return `value` if it is an integer; throw UserError otherwise. */
export function checkInteger(subject: string, value: unknown): number {
  if (!Number.isInteger(value)) throw new UserError(subject, String(value), "an integer", "choose another number");
  return value as number;
}

/** Return `value` if it is a finite number; throw UserError otherwise. */
export function checkNumber(subject: string, value: unknown): number {
  if (!Number.isFinite(value)) throw new UserError(subject, String(value), "a finite number", "choose another number");
  return value as number;
}

/** Return `value` if it is an integer from 0 to MAX_SEED; throw UserError otherwise. */
export function checkSeed(subject: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new UserError(subject, String(value), `an integer from 0 to ${MAX_SEED}`, "choose another seed");
  }
  return value as number;
}

/** Return `value` if it is a boolean; throw UserError otherwise. */
export function checkFlag(subject: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new UserError(subject, String(value), "true or false", "pass one of them");
  return value;
}

/** Return `value` if it is one of CONTROL_MODES; throw UserError otherwise. */
export function checkMode(subject: string, value: unknown): ControlMode {
  checkOneOf(subject, value, CONTROL_MODES);
  return value as ControlMode;
}

/** Return `value` if it is one of PROMPT_SYNTAXES; throw UserError otherwise. */
export function checkSyntax(subject: string, value: unknown): PromptSyntax {
  checkOneOf(subject, value, PROMPT_SYNTAXES);
  return value as PromptSyntax;
}

/** Return `value` if it is a list of strings; throw UserError otherwise. */
export function checkNames(subject: string, value: unknown): readonly string[] {
  if (!Array.isArray(value)) {
    const got = typeof value === "string" ? `'${value}'` : String(value);
    throw new UserError(subject, got, "a list of names", "put the name into a list");
  }
  return value.map((name) => checkText(subject, name));
}

/** Return `value` if it is a number from 0 to 1; throw UserError otherwise. */
export function checkShare(subject: string, value: unknown): number {
  const share = checkNumber(subject, value);
  if (share >= 0 && share <= 1) return share;
  throw new UserError(subject, String(share), "a number from 0 to 1", "choose another number");
}

/** Return `value`, null or a list of finite numbers, as an array; throw UserError otherwise. */
export function checkNumbers(subject: string, value: unknown): readonly number[] | null {
  if (value === null) return null;
  const numbers = ArrayBuffer.isView(value) ? [...(value as unknown as Iterable<unknown>)] : value;
  if (Array.isArray(numbers)) return numbers.map((number) => checkNumber(subject, number));
  throw new UserError(subject, String(value), "a list of numbers", "put the number into a list");
}

/** Return `value`, null or two integers of 0 or more; throw UserError otherwise. */
export function checkPair(subject: string, value: unknown): Pair | null {
  if (value === null) return null;
  const items = Array.isArray(value) ? value : [];
  if (items.length === 2 && items.every((item) => Number.isInteger(item) && 0 <= item && item <= MAX_PIXELS)) {
    return [items[0], items[1]];
  }
  const wanted = `two integers from 0 to ${MAX_PIXELS}, the vertical one first`;
  throw new UserError(subject, JSON.stringify(value) ?? String(value), wanted, "leave it out for the usual one");
}

/** Return a check that lets null pass. */
export function orNull<T>(
  check: (subject: string, value: unknown) => T,
): (subject: string, value: unknown) => T | null {
  return (subject, value) => (value === null ? null : check(subject, value));
}

/** Return a check that takes one value for all ControlNets, or a list with a value for each. */
export function oneOrEach<T>(
  check: (subject: string, value: unknown) => T,
): (subject: string, value: unknown) => OneOrEach<T> {
  return (subject, value) => (Array.isArray(value) ? value.map((item) => check(subject, item)) : check(subject, value));
}

/** Return `value` if it is a finite number of 1 or more; throw UserError otherwise. */
export function checkHiresScale(subject: string, value: unknown): number {
  if (typeof value === "number" && value >= 1 && value < Number.POSITIVE_INFINITY) return value;
  throw new UserError(subject, String(value), "a number of 1 or more", "2 is usual; leave it out to draw once");
}

/** Return `value` if it is an integer of 1 or more; throw UserError otherwise. */
export function checkHiresSteps(subject: string, value: unknown): number {
  if (Number.isInteger(value) && (value as number) >= 1) return value as number;
  throw new UserError(subject, String(value), "an integer of 1 or more", "leave it out for as many as before");
}

/** Return `value` if it is one of UPSCALE_MODES; throw UserError otherwise. */
export function checkUpscaler(subject: string, value: unknown): UpscaleMode {
  checkOneOf(subject, value, UPSCALE_MODES);
  return value as UpscaleMode;
}

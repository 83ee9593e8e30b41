/** The keys of what a site passes in: one that a script without types misspelt would be ignored without a word. */

import type { EngineOptions, GenerateCallbacks } from "./create_engine.ts";
import { UserError } from "./errors.ts";
import type { GenerateRequest } from "./pipeline.ts";

const OPTIONS: Readonly<Record<keyof EngineOptions, true>> = {
  bundleUrl: true,
  memory: true,
  onManifest: true,
  onProgress: true,
  signal: true,
};
const REQUEST: Readonly<Record<keyof GenerateRequest, true>> = {
  prompt: true,
  controlImage: true,
  image: true,
  maskImage: true,
  negativePrompt: true,
  steps: true,
  guidanceScale: true,
  conditioningScale: true,
  controlGuidanceStart: true,
  controlGuidanceEnd: true,
  seed: true,
  sampler: true,
};
const CALLBACKS: Readonly<Record<keyof GenerateCallbacks, true>> = {
  onStep: true,
  onNotice: true,
  signal: true,
};
/** Of a key's letters: how many a misspelt one may differ in. */
const MAX_DIFFERENCE = 0.4;

/** Throws UserError for options of createEngine with a key that is none, or that are no object. */
export function checkOptions(options: EngineOptions): void {
  checkKeys("options", options, OPTIONS);
}

/** Throws UserError for a request with a key that is none, or that is no object. */
export function checkRequest(request: GenerateRequest): void {
  checkKeys("request", request, REQUEST);
}

/** Throws UserError for callbacks of generate with a key that is none, or that are no object. */
export function checkCallbacks(callbacks: GenerateCallbacks): void {
  checkKeys("callbacks", callbacks, CALLBACKS);
}

function checkKeys(subject: string, given: unknown, known: Readonly<Record<string, true>>): void {
  const keys = Object.keys(known);
  if (typeof given !== "object" || given === null) {
    throw new UserError(subject, String(given), "an object", `pass for example { ${keys[0]}: … }`);
  }
  for (const key of Object.keys(given)) {
    if (Object.hasOwn(known, key)) continue;
    const near = nearestKey(key, keys);
    const remedy = near === undefined ? "leave it out" : `did you mean ${near}?`;
    throw new UserError(`key of the ${subject}`, `'${key}'`, `one of ${keys.join(", ")}`, remedy);
  }
}

/** In either language's spelling; a key that is a part of the other, as steps of num_inference_steps, is near enough. */
function nearestKey(wrong: string, keys: readonly string[]): string | undefined {
  const plain = (key: string) => key.toLowerCase().replaceAll("_", "");
  const difference = (key: string) => {
    const [a, b] = [plain(wrong), plain(key)];
    const share = editDistance(a, b) / b.length;
    return a.length > 2 && (a.includes(b) || b.includes(a)) ? Math.min(share, MAX_DIFFERENCE) : share;
  };
  const near = keys.filter((key) => difference(key) <= MAX_DIFFERENCE);
  return near.sort((one, other) => difference(one) - difference(other))[0];
}

/** Letters to insert, delete or replace (Levenshtein, 1966). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, j) => j);
  for (const letter of from) {
    const next = [row[0] + 1];
    for (let j = 0; j < to.length; j++) {
      next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + Number(letter !== to[j])));
    }
    row = next;
  }
  return row[to.length];
}

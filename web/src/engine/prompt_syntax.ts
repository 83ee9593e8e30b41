/**
 * Read prompts as sd-webui's users write them.
 *
 *     (word)      weight 1.1          (word:1.2)  weight 1.2          [word]  weight 1 / 1.1
 *     ((word))    weight 1.1 * 1.1    \( \) \[ \] \\  the character    BREAK   begins a new chunk
 *
 * The rule is that of sd-webui's `parse_prompt_attention` (AUTOMATIC1111, module prompt_parser). What is no weight stays
 * text, as there: `(a:x)` is "a:x" at weight 1.1. In one place they differ: BREAK between brackets begins a new chunk
 * here too, where sd-webui multiplies its mark by the weight and reads a word "BREAK" of negative weight.
 *
 * Twin: mlc_controlnet/runtime/prompt_syntax.py, the same functions in the same order.
 */

import { UserError } from "./errors.ts";

/**
 * The values of the option `promptSyntax`. "plain" reads a prompt as diffusers does: brackets are text, and what exceeds
 * one chunk is cut. The default is "webui", because prompts that are shared mean weights by their brackets, and every
 * program that draws in a page or a window reads them so. A prompt without brackets, backslashes, BREAK and AND that
 * fits in one chunk is the same in both.
 */
export const PROMPT_SYNTAXES = ["webui", "plain"] as const;
export type PromptSyntax = (typeof PROMPT_SYNTAXES)[number];

/** The factors of (word) and [word]. */
const ROUND = 1.1;
const SQUARE = 1 / 1.1;
const FLOAT32_MAX = 3.4028234663852886e38;

/** \s of Python, but for control characters. */
const SPACE = "[^\\S\\ufeff]";
/** \w of Python. */
const WORD = "[\\p{L}\\p{N}_]";
const ATTENTION = new RegExp(
  `\\\\[()[\\]\\\\]?|[()[\\]]|:${SPACE}*([+\\-]?[.0-9]+)${SPACE}*\\)|[^\\\\()[\\]:]+|:`,
  "gu",
);
const BREAK = new RegExp(`${SPACE}*(?<!${WORD})BREAK(?!${WORD})${SPACE}*`, "u");
const NUMBER = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$/;
const NETWORK = /<(lora|lyco|hypernet):[^>]+>/;
const AND = new RegExp(`(?<!${WORD})AND(?!${WORD})`, "u");
const EDITING = /\\.|[()[\]:|]/gsu;
const WHEN = new RegExp(`^${SPACE}*[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?${SPACE}*$`);

/** A piece of a prompt whose words have one weight. */
export interface Segment {
  text: string;
  weight: number;
}

/**
 * Divide a prompt into segments: one list for each part between BREAKs, each with one segment at least.
 *
 * Throws UserError, which names `subject`, if a weight is no finite number in float32, or the prompt uses what sd-webui
 * computes during drawing: prompt editing, alternation, AND, or networks such as `<lora:file:1>`.
 */
export function parsePrompt(prompt: string, subject = "prompt"): Segment[][] {
  refuseWhatChangesTheDrawing(prompt, subject);
  const parts: Segment[][] = [[]];
  const segments: Segment[] = []; // of all parts
  const roundBrackets: number[] = []; // the number of segments before each bracket that is open
  const squareBrackets: number[] = [];

  const append = (text: string) => {
    const segment = { text, weight: 1 };
    segments.push(segment);
    parts[parts.length - 1].push(segment);
  };
  const multiply = (start: number, factor: number) => {
    for (const segment of segments.slice(start)) segment.weight *= factor;
  };

  for (const [symbol, weight] of prompt.matchAll(ATTENTION)) {
    const round = roundBrackets.at(-1);
    const square = squareBrackets.at(-1);
    if (symbol.startsWith("\\")) append(symbol.slice(1));
    else if (symbol === "(") roundBrackets.push(segments.length);
    else if (symbol === "[") squareBrackets.push(segments.length);
    else if (weight !== undefined && round !== undefined) {
      multiply(round, parseNumber(weight, subject));
      roundBrackets.pop();
    } else if (symbol === ")" && round !== undefined) {
      multiply(round, ROUND);
      roundBrackets.pop();
    } else if (symbol === "]" && square !== undefined) {
      multiply(square, SQUARE);
      squareBrackets.pop();
    } else {
      for (const [index, text] of symbol.split(BREAK).entries()) {
        if (index > 0) parts.push([]);
        append(text);
      }
    }
  }
  for (const start of roundBrackets) multiply(start, ROUND);
  for (const start of squareBrackets) multiply(start, SQUARE);
  for (const { weight } of segments) checkWeight(weight, subject);
  return parts.map(merged);
}

function refuseWhatChangesTheDrawing(prompt: string, subject: string): void {
  const plain = "choose the prompt syntax plain if this is text";
  const network = NETWORK.exec(prompt);
  if (network) {
    const remedy =
      network[1] === "hypernet"
        ? "leave this out"
        : "merge the file into a bundle: build.py --lora FILE:WEIGHT, and leave this out";
    throw new UserError(subject, network[0], "no networks: a bundle's weights do not change", remedy);
  }
  if (AND.test(prompt)) {
    const remedy = `write one prompt, or \`and\` in small letters; ${plain}`;
    throw new UserError(subject, "AND, which composes several prompts", "one prompt", remedy);
  }
  const editing = findEditing(prompt);
  if (editing !== undefined) {
    const remedy = `write the words that you want most; ${plain}, or write \\[ and \\]`;
    throw new UserError(subject, editing, "words that are the same in every step", remedy);
  }
}

/** A bracket or separator, and its place. */
type Mark = readonly [symbol: string, start: number];

/** Return the first `[a:b:0.4]`, `[a:0.4]`, `[a::0.4]` or `[a|b]`; undefined if there is none. */
function findEditing(prompt: string): string | undefined {
  const opened: { bracket: Mark; separators: Mark[] }[] = []; // with the separators directly in each
  for (const match of prompt.matchAll(EDITING)) {
    const mark: Mark = [match[0], match.index];
    const [symbol, start] = mark;
    if (symbol === "(" || symbol === "[") opened.push({ bracket: mark, separators: [] });
    else if (symbol === ":" || symbol === "|") opened.at(-1)?.separators.push(mark);
    else if (symbol === ")" || symbol === "]") {
      const closed = opened.pop();
      if (closed === undefined || !["()", "[]"].includes(closed.bracket[0] + symbol)) {
        opened.length = 0;
        continue;
      }
      const [bracket, begin] = closed.bracket;
      if (bracket === "[" && edits(closed.separators, prompt, start)) return prompt.slice(begin, start + 1);
    }
  }
  return undefined;
}

function edits(separators: readonly Mark[], prompt: string, end: number): boolean {
  if (separators.some(([symbol]) => symbol === "|")) return true;
  if (separators.length < 1 || separators.length > 2) return false;
  const [, last] = separators[separators.length - 1];
  return WHEN.test(prompt.slice(last + 1, end));
}

function parseNumber(text: string, subject: string): number {
  if (!NUMBER.test(text)) {
    throw new UserError(subject, `the weight ${text}`, "a number, for example 1.2", "correct it");
  }
  return Number(text);
}

function checkWeight(weight: number, subject: string): void {
  if (!(Math.abs(weight) <= FLOAT32_MAX)) {
    throw new UserError(subject, "a weight beyond float32", "weights of about 0.5 to 1.5", "choose smaller weights");
  }
}

/** Join neighbours of the same weight: their words are tokenized as one text. */
function merged(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    if (last?.weight === segment.weight) last.text += segment.text;
    else joined.push(segment);
  }
  return joined.length > 0 ? joined : [{ text: "", weight: 1 }];
}

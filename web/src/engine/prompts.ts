/**
 * Read prompts as sd-webui's users write them: weights, and any length in chunks.
 *
 *     (word)      weight 1.1          (word:1.2)  weight 1.2          [word]  weight 1 / 1.1
 *     ((word))    weight 1.1 * 1.1    \( \) \[ \] \\  the character    BREAK   begins a new chunk
 *
 * The rules are those of sd-webui's `parse_prompt_attention`, chunks and `EmphasisOriginal` (AUTOMATIC1111, modules
 * prompt_parser, sd_hijack_clip and sd_emphasis), with the defaults of its settings. What is no weight stays text, as
 * there: `(a:x)` is "a:x" at weight 1.1. In one place they differ: BREAK between brackets begins a new chunk here too,
 * where sd-webui multiplies its mark by the weight and reads a word "BREAK" of negative weight.
 *
 * Twin: mlc_controlnet/runtime/prompts.py, the same functions in the same order.
 */

import type { Components, Context, FloatArray } from "./components.ts";
import { UserError } from "./errors.ts";
import type { PromptTokenizer } from "./tokenizer.ts";

/**
 * The values of the option `promptSyntax`. "plain" reads a prompt as diffusers does: brackets are text, and what exceeds
 * one chunk is cut. The default is "webui", because prompts that are shared mean weights by their brackets, and every
 * program that draws in a page or a window reads them so. A prompt without brackets, backslashes, BREAK and AND that
 * fits in one chunk is the same in both.
 */
export const SYNTAXES = ["webui", "plain"] as const;
export type PromptSyntax = (typeof SYNTAXES)[number];

/** The factors of (word) and [word]. */
const ROUND = 1.1;
const SQUARE = 1 / 1.1;
const FLOAT16_MAX = 65504;
const FLOAT32_MAX = 3.4028234663852886e38;
/** Tokens; sd-webui's setting "Prompt word wrap length limit". */
const COMMA_BACKTRACK = 20;

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

/** What the text encoder reads at once. */
export interface Chunk {
  /** int32 [1, T]: begin, words, end, then padding. */
  readonly tokenIds: Int32Array<ArrayBuffer>;
  /** float32 [T]; 1 for begin, end and padding. */
  readonly weights: FloatArray;
}

/** A prompt as chunks, and the part of it that was cut off. */
export interface TokenizedPrompt {
  /** One at least. */
  readonly chunks: readonly Chunk[];
  /** The words at the end of the prompt that did not fit; "" if all of it did. */
  readonly cutText: string;
}

/** A token in a chunk, and its place in the prompt. */
interface Token {
  /** Several for a textual inversion of several vectors. */
  readonly ids: readonly number[];
  readonly weight: number;
  readonly part: number;
  readonly segment: number;
  /** In its segment. */
  readonly idsBefore: number;
}

/** Tell whether a chunk has a weight that is not 1. */
export function isWeighted(chunk: Chunk): boolean {
  return chunk.weights.some((weight) => weight !== 1);
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

/**
 * Tokenize a prompt into chunks of T - 2 tokens; it loses what exceeds `maxChunks`, or one chunk if it is plain.
 *
 * As in sd-webui, up to 20 tokens after a comma move to the next chunk together. Throws UserError as `parsePrompt` does.
 */
export function tokenizePrompt(
  prompt: string,
  tokenizer: PromptTokenizer,
  maxChunks: number,
  syntax: PromptSyntax = "webui",
  subject = "prompt",
): TokenizedPrompt {
  const isPlain = syntax === "plain";
  const parts = isPlain ? [[{ text: prompt, weight: 1 }]] : parsePrompt(prompt, subject);
  const chunks = layOut(parts, tokenizer, !isPlain);
  const kept = isPlain ? 1 : maxChunks;
  const [cut] = chunks.slice(kept).flat();
  const cutText = cut === undefined ? "" : textFrom(cut, parts, tokenizer);
  return { chunks: chunks.slice(0, kept).map((tokens) => makeChunk(tokens, tokenizer)), cutText };
}

/** Append empty chunks until all prompts have as many as the longest: the UNet reads contexts of one length. */
export function padChunks(prompts: readonly TokenizedPrompt[], tokenizer: PromptTokenizer): TokenizedPrompt[] {
  const count = Math.max(...prompts.map(({ chunks }) => chunks.length));
  const empty = makeChunk([], tokenizer);
  return prompts.map(({ chunks, cutText }) => {
    const padding = Array.from({ length: count - chunks.length }, () => empty);
    return { chunks: [...chunks, ...padding], cutText };
  });
}

/**
 * Encode each chunk, apply its weights and put the chunks' contexts one after another: [1, N T, D].
 *
 * Rejects with UserError as `applyWeights` does.
 */
export async function encodePrompt(
  components: Components,
  prompt: TokenizedPrompt,
  clipSkip = 0,
  subject = "prompt",
): Promise<Context> {
  const [first] = prompt.chunks;
  if (prompt.chunks.length === 1 && !isWeighted(first)) return components.textEncoder(first.tokenIds, clipSkip);
  const weighted: number[] = [];
  for (const { tokenIds, weights } of prompt.chunks) {
    const context = await components.textEncoder(tokenIds, clipSkip);
    try {
      const [values] = await context.read();
      for (const value of applyWeights(values, weights, subject)) weighted.push(value);
    } finally {
      context.dispose();
    }
  }
  return components.context(Float32Array.from(weighted));
}

/**
 * Multiply each token's row of a chunk's context, [T, D], by its weight, [T], then restore the mean over the chunk.
 *
 * Throws UserError, which names `subject`, if the weights cancel out, so that the mean cannot be restored in float16.
 */
export function applyWeights(context: FloatArray, weights: FloatArray, subject = "prompt"): FloatArray {
  const width = context.length / weights.length;
  const weighted = Float64Array.from(context, (value, i) => value * weights[Math.floor(i / width)]);
  const factor = sum(context) / sum(weighted);
  const restored = weighted.map((value) => value * factor);
  if (!restored.every((value) => Math.abs(value) <= FLOAT16_MAX)) {
    throw new UserError(
      subject,
      "weights that cancel out",
      "a weighted context with a mean that is not about 0",
      "choose weights closer to 1",
    );
  }
  return Float32Array.from(restored);
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

function* tokens(parts: readonly Segment[][], tokenizer: PromptTokenizer, part: number): Generator<Token> {
  for (const [segment, { text, weight }] of parts[part].entries()) {
    let idsBefore = 0;
    for (const ids of tokenizer.tokens(text)) {
      yield { ids, weight, part, segment, idsBefore };
      idsBefore += ids.length;
    }
  }
}

function layOut(parts: readonly Segment[][], tokenizer: PromptTokenizer, wraps: boolean): Token[][] {
  const chunks: Token[][] = [];
  let chunk: Token[] = [];
  const begin = (first: Token[]) => {
    chunk = first;
    chunks.push(chunk);
  };
  for (const part of parts.keys()) {
    begin([]);
    for (const token of tokens(parts, tokenizer, part)) {
      if (wraps && countIds(chunk) === tokenizer.room && !sameIds(token.ids, tokenizer.comma)) {
        const after = afterComma(chunk, tokenizer.comma);
        if (after !== undefined) begin(chunk.splice(after));
      }
      if (countIds(chunk) + token.ids.length > tokenizer.room) begin([]);
      chunk.push(token);
    }
  }
  return chunk.length > 0 || chunks.length === 1 ? chunks : chunks.slice(0, -1);
}

function countIds(tokens: readonly Token[]): number {
  return tokens.reduce((count, { ids }) => count + ids.length, 0);
}

/** Return the place after the last comma of a full chunk; undefined if that is too far from the end. */
function afterComma(tokens: readonly Token[], comma: readonly number[]): number | undefined {
  let distance = 0;
  for (let place = tokens.length - 1; place >= 0; place--) {
    distance += tokens[place].ids.length;
    if (distance > COMMA_BACKTRACK) return undefined;
    if (sameIds(tokens[place].ids, comma)) return place + 1;
  }
  return undefined;
}

function sameIds(ids: readonly number[], others: readonly number[]): boolean {
  return ids.length === others.length && ids.every((id, i) => id === others[i]);
}

function makeChunk(tokens: readonly Token[], { spec }: PromptTokenizer): Chunk {
  const ids = tokens.flatMap((token) => token.ids);
  const tokenIds = new Int32Array(spec.max_length).fill(spec.pad_id);
  tokenIds.set([spec.begin_id, ...ids, spec.end_id]);
  const weights = new Float32Array(spec.max_length).fill(1);
  weights.set(
    tokens.flatMap((token) => token.ids.map(() => token.weight)),
    1,
  );
  return { tokenIds, weights };
}

/** Return the words from `token` to the end of the prompt, without the syntax of weights. */
function textFrom(token: Token, parts: readonly Segment[][], tokenizer: PromptTokenizer): string {
  const [segment, ...rest] = parts[token.part].slice(token.segment);
  const first = tokenizer.wordsAfter(segment.text, token.idsBefore) + rest.map(({ text }) => text).join("");
  const others = parts.slice(token.part + 1).map((part) => part.map(({ text }) => text).join(""));
  return [first, ...others].join(" BREAK ").trim();
}

function sum(values: Float32Array | Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

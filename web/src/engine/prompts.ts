/**
 * Turn prompts of any length into chunks, and their weights into contexts.
 *
 * The rules are those of sd-webui's chunks and of its `EmphasisOriginal` (AUTOMATIC1111, modules sd_hijack_clip and
 * sd_emphasis), with the defaults of its settings.
 *
 * Twin: mlc_controlnet/runtime/prompts.py, the same functions in the same order.
 */

import type { Components, Context, FloatArray } from "./components.ts";
import { UserError } from "./errors.ts";
import { type PromptSyntax, parsePrompt, type Segment } from "./prompt_syntax.ts";
import type { PromptTokenizer } from "./tokenizer.ts";

const FLOAT16_MAX = 65504;
/** Tokens; sd-webui's setting "Prompt word wrap length limit". */
const COMMA_BACKTRACK = 20;

/** What the text encoder reads at once. */
export interface Chunk {
  /** int32 [1, T]: begin, words, end, then padding. */
  readonly tokenIds: Int32Array<ArrayBuffer>;
  /** float32 [T]; 1 for begin, end and padding. */
  readonly weights: FloatArray;
  /** Of the first end token. */
  readonly endPosition: number;
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

/** Append empty chunks until all prompts have as many as the longest, and `least`: contexts are of one length. */
export function padChunks(
  prompts: readonly TokenizedPrompt[],
  tokenizer: PromptTokenizer,
  least = 1,
): TokenizedPrompt[] {
  const count = Math.max(least, ...prompts.map(({ chunks }) => chunks.length));
  const empty = makeChunk([], tokenizer);
  return prompts.map(({ chunks, cutText }) => {
    const padding = Array.from({ length: count - chunks.length }, () => empty);
    return { chunks: [...chunks, ...padding], cutText };
  });
}

/**
 * Encode each chunk, apply its weights and put the chunks' contexts one after another: [1, N T, D].
 *
 * `prompt2` is for a second text encoder, as many chunks. The pooled output is that of its first chunk, as in sd-webui.
 * Rejects with UserError as `applyWeights` does.
 */
export async function encodePrompt(
  components: Components,
  prompt: TokenizedPrompt,
  clipSkip = 0,
  subject = "prompt",
  prompt2?: TokenizedPrompt,
): Promise<Context> {
  if (prompt2 !== undefined) return encodeForTwo(components, prompt, prompt2, clipSkip, subject);
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

/** Encode for two text encoders, whose contexts are weighted each on its own and lie side by side along D. */
async function encodeForTwo(
  components: Components,
  prompt: TokenizedPrompt,
  prompt2: TokenizedPrompt,
  clipSkip: number,
  subject: string,
): Promise<Context> {
  const contexts: Context[] = [];
  try {
    for (const [i, chunk] of prompt.chunks.entries()) {
      const { tokenIds, endPosition } = prompt2.chunks[i];
      let first = await components.textEncoder(chunk.tokenIds, clipSkip);
      try {
        if (isWeighted(chunk)) {
          const [values] = await first.read();
          const weighted = applyWeights(values, chunk.weights, subject);
          first.dispose();
          first = await components.context(weighted, undefined, weighted.length / chunk.weights.length);
        }
        contexts.push(await components.textEncoder2(tokenIds, endPosition, first, clipSkip));
      } finally {
        first.dispose();
      }
    }
    if (contexts.length === 1 && !isWeighted(prompt2.chunks[0])) return contexts.splice(0)[0];
    const weighted: number[] = [];
    let textEmbeds: FloatArray | undefined;
    for (const [i, context] of contexts.entries()) {
      const [values, pooled] = await context.read();
      textEmbeds ??= pooled;
      for (const value of weightSecond(values, components.firstWidth(), prompt2.chunks[i].weights, subject)) {
        weighted.push(value);
      }
    }
    return await components.context(Float32Array.from(weighted), textEmbeds);
  } finally {
    for (const context of contexts) context.dispose();
  }
}

/** Apply weights to the second text encoder's share of a chunk's context, [T, D]: its columns from `start` on. */
function weightSecond(context: FloatArray, start: number, weights: FloatArray, subject: string): FloatArray {
  const width = context.length / weights.length;
  const own = width - start;
  const second = Float32Array.from({ length: own * weights.length }, (_, i) => {
    return context[Math.floor(i / own) * width + start + (i % own)];
  });
  const weighted = applyWeights(second, weights, subject);
  const whole = context.slice();
  for (const row of weights.keys()) whole.set(weighted.subarray(row * own, (row + 1) * own), row * width + start);
  return whole;
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
  const isSound = context.every(Number.isFinite); // NaN is the text encoder's mistake
  if (isSound && !restored.every((value) => Math.abs(value) <= FLOAT16_MAX)) {
    throw new UserError(
      subject,
      "weights that cancel out",
      "a weighted context with a mean that is not about 0",
      "choose weights closer to 1",
    );
  }
  return Float32Array.from(restored);
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
  return { tokenIds, weights, endPosition: ids.length + 1 };
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

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  applyWeights,
  isWeighted,
  type PromptSyntax,
  padChunks,
  parsePrompt,
  tokenizePrompt,
} from "../../src/engine/prompts";
import { PromptTokenizer } from "../../src/engine/tokenizer";

/** Written by python -m tests.fixtures.write_prompts. */
interface Cases {
  readonly parsed: readonly { prompt: string; parts: [string, number][][] }[];
  readonly refused: readonly { prompt: string; message: string }[];
  readonly tokenizer: unknown;
  readonly begin_id: number;
  readonly end_id: number;
  readonly pad_id: number;
  readonly tokenized: readonly {
    prompt: string;
    syntax: PromptSyntax;
    max_length: number;
    max_chunks: number;
    token_ids: number[][];
    weights: number[][];
    cut_text: string;
  }[];
}

const cases: Cases = JSON.parse(readFileSync(new URL("../../../tests/fixtures/prompts.json", import.meta.url), "utf8"));

function tokenizer(max_length: number): PromptTokenizer {
  const { begin_id, end_id, pad_id } = cases;
  const json = new TextEncoder().encode(JSON.stringify(cases.tokenizer));
  return new PromptTokenizer(json, { file: "tokenizer.json", max_length, begin_id, end_id, pad_id });
}

describe("a prompt has sd-webui's segments", () => {
  test.each(cases.parsed)("$prompt", ({ prompt, parts }) => {
    const got = parsePrompt(prompt);
    const texts = (wanted: [string, number][][]) => wanted.map((part) => part.map(([text]) => text));
    expect(got.map((part) => part.map(({ text }) => text))).toEqual(texts(parts));
    for (const [i, [, weight]] of parts.flat().entries()) expect(got.flat()[i].weight).toBeCloseTo(weight, 12);
  });
});

describe("what cannot be drawn is refused by name", () => {
  test.each(cases.refused)("$prompt", ({ prompt, message }) => {
    expect(() => parsePrompt(prompt, "negative prompt")).toThrow(`negative prompt: got ${message}`);
  });
});

describe("a prompt has sd-webui's chunks", () => {
  test.each(cases.tokenized)("$prompt", (one) => {
    const { chunks, cutText } = tokenizePrompt(one.prompt, tokenizer(one.max_length), one.max_chunks, one.syntax);
    expect(chunks.map(({ tokenIds }) => [...tokenIds])).toEqual(one.token_ids);
    expect(chunks.map(({ weights }) => [...weights])).toEqual(one.weights.map((row: number[]) => row.map(Math.fround)));
    expect(cutText).toBe(one.cut_text);
  });
});

test("prompts are padded to the longest with empty chunks", () => {
  const letters = tokenizer(5);
  const prompts = ["a b c d e f g", "(h:2)"].map((text) => tokenizePrompt(text, letters, 4));
  const [long, short] = padChunks(prompts, letters);
  expect(long).toEqual(prompts[0]);
  expect(short.chunks.map(({ tokenIds }) => [...tokenIds])).toEqual([
    [30, 8, 31, 0, 0],
    [30, 31, 0, 0, 0],
    [30, 31, 0, 0, 0],
  ]);
  expect(short.chunks.map(isWeighted)).toEqual([true, false, false]);
});

test("weights multiply rows, and the mean is restored", () => {
  const context = Float32Array.of(1, 3, 2, 0); // mean 1.5
  const weighted = applyWeights(context, Float32Array.of(1, 2)); // 1, 3, 4, 0: mean 2
  expect([...weighted]).toEqual([0.75, 2.25, 3, 0]);
  expect(applyWeights(context, Float32Array.of(1, 1))).toEqual(context);
});

test.each([
  [0, 0],
  [1, -1],
  [1, -1 + 1e-7],
])("weights %d and %d, which cancel out, are refused", (...weights) => {
  const context = Float32Array.of(1, 1, 1, 1, 1, 1);
  expect(() => applyWeights(context, Float32Array.from(weights), "negative prompt")).toThrow(
    "negative prompt: got weights that cancel out, wanted",
  );
});

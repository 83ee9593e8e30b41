import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Components, FloatArray } from "../../src/engine/components";
import type { PromptSyntax } from "../../src/engine/prompt_syntax";
import { applyWeights, encodePrompt, isWeighted, padChunks, tokenizePrompt } from "../../src/engine/prompts";
import { PromptTokenizer } from "../../src/engine/tokenizer";

/** Written by python -m tests.fixtures.write_prompts. */
interface Cases {
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

/** Its text encoder gives each token a context of two numbers: its id, and how many layers were skipped. */
function fakeComponents() {
  const counts = { made: 0, disposed: 0 };
  const context = async (values: FloatArray) => {
    counts.made++;
    return { read: async () => [values], dispose: () => counts.disposed++ };
  };
  const textEncoder = (ids: Int32Array, clipSkip = 0) =>
    context(Float32Array.from([...ids].flatMap((id) => [id, clipSkip])));
  return { counts, components: { context, textEncoder } as unknown as Components };
}

test("a prompt without weights that fits into one chunk stays on the device", async () => {
  const { counts, components } = fakeComponents();
  const context = await encodePrompt(components, tokenizePrompt("a b", tokenizer(5), 1), 1);
  expect(await context.read()).toEqual([Float32Array.of(30, 1, 1, 1, 2, 1, 31, 1, 0, 1)]);
  expect(counts).toEqual({ made: 1, disposed: 0 });
});

test("several chunks are one context, each with its own weights", async () => {
  const { counts, components } = fakeComponents();
  const context = await encodePrompt(components, tokenizePrompt("(a:3) b c d", tokenizer(5), 2));
  const mean = 30 + 1 + 2 + 3 + 31;
  const first = [30, 0, 3, 0, 2, 0, 3, 0, 31, 0].map((value) => Math.fround(value * (mean / (mean + 2))));
  expect(await context.read()).toEqual([Float32Array.of(...first, 30, 0, 4, 0, 31, 0, 0, 0, 0, 0)]);
  expect(counts).toEqual({ made: 3, disposed: 2 });
});

test("weights that cancel out leave nothing on the device", async () => {
  const { counts, components } = fakeComponents();
  const encoded = encodePrompt(components, tokenizePrompt("(a:-61)", tokenizer(5), 1), 0, "negative prompt");
  await expect(encoded).rejects.toThrow("negative prompt: got weights that cancel out");
  expect(counts).toEqual({ made: 1, disposed: 1 });
});

test("a context that is not finite is kept: its component is named later", () => {
  const [value] = applyWeights(Float32Array.of(Number.NaN, 1), Float32Array.of(1, 2));
  expect(value).toBeNaN();
});

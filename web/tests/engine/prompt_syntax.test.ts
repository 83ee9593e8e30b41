import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parsePrompt } from "../../src/engine/prompt_syntax";

/** Written by python -m tests.fixtures.write_prompts. */
interface Cases {
  readonly parsed: readonly { prompt: string; parts: [string, number][][] }[];
  readonly refused: readonly { prompt: string; message: string }[];
}

const cases: Cases = JSON.parse(readFileSync(new URL("../../../tests/fixtures/prompts.json", import.meta.url), "utf8"));

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

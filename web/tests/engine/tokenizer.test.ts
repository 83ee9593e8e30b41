import { expect, test } from "vitest";
import { PromptTokenizer } from "../../src/engine/tokenizer";
import { FILES, makeManifest } from "./sample_bundle";

/** Five tokens in all: three for words. */
const tokenizer = new PromptTokenizer(FILES["tokenizer/tokenizer.json"], makeManifest().tokenizer);

function withWords(...words: string[]): PromptTokenizer {
  const json = JSON.parse(new TextDecoder().decode(FILES["tokenizer/tokenizer.json"]));
  const flags = { lstrip: false, rstrip: false, normalized: true, special: false };
  const added = words.map((content, i) => ({ id: 8 + i, content, single_word: /^\w+$/.test(content), ...flags }));
  json.added_tokens = [...json.added_tokens, ...added];
  return new PromptTokenizer(new TextEncoder().encode(JSON.stringify(json)), makeManifest().tokenizer);
}

test("words are tokens, in lower case", () => {
  expect(tokenizer.tokens("b A")).toEqual([[1], [0]]);
  expect(tokenizer.tokens("")).toEqual([]);
  expect(tokenizer.room).toBe(3);
});

test("a prompt is not cut here", () => {
  expect(tokenizer.tokens("a b c a b c")).toHaveLength(6);
});

test.each([
  [0, "ab  C a"],
  [1, "ab  C a"],
  [2, "C a"],
  [3, "a"],
  [4, ""],
])("words that are not whole among the first %d ids come after", (count, words) => {
  expect(tokenizer.wordsAfter("ab  C a", count)).toBe(words);
});

test("an added word is found whole, whatever its case", () => {
  const taught = withWords("cab", "<cat-toy>");
  expect(taught.tokens("CAB")).toEqual([[8]]);
  expect(taught.tokens("acab cabs cab_").flat()).not.toContain(8);
  expect(taught.tokens("a <Cat-Toy>b")).toEqual([[0], [9], [1]]);
});

test("the longest added word is found first and has all its vectors", () => {
  const taught = withWords("<toy>", "<toy>_1", "<toy>_2", "<toy> car");
  expect(taught.tokens("<toy>")).toEqual([[8, 9, 10]]);
  expect(taught.tokens("<toy> car")).toEqual([[11]]);
  expect(taught.tokens("<toy>_1")).toEqual([[9]]);
});

test("characters of a word are no pattern", () => {
  const taught = withWords("a.b+");
  expect(taught.tokens("a.b+")).toEqual([[8]]);
  expect(taught.tokens("acbb").flat()).not.toContain(8);
});

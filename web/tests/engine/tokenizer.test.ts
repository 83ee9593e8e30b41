import { expect, test } from "vitest";
import { PromptTokenizer } from "../../src/engine/tokenizer";
import { FILES, makeManifest } from "./sample_bundle";

/** Five tokens in all: three for words. */
const tokenizer = new PromptTokenizer(FILES["tokenizer/tokenizer.json"], makeManifest().tokenizer);

test("begin, words, end and padding", () => {
  expect([...tokenizer.encode("b A").tokenIds]).toEqual([6, 1, 0, 7, 7]);
});

test("an empty prompt is begin and end", () => {
  expect([...tokenizer.encode("").tokenIds]).toEqual([6, 7, 7, 7, 7]);
});

test("a prompt that just fits is not cut", () => {
  expect(tokenizer.encode("a b c")).toEqual({ tokenIds: Int32Array.of(6, 0, 1, 2, 7), cutText: "" });
});

test("what does not fit is cut and told as it was written", () => {
  const { tokenIds, cutText } = tokenizer.encode("a b c  A B");
  expect([...tokenIds]).toEqual([6, 0, 1, 2, 7]);
  expect(cutText).toBe("A B");
});

test("a word of which only a part fits is told whole", () => {
  expect(tokenizer.encode("a b cab a")).toEqual({ tokenIds: Int32Array.of(6, 0, 1, 5, 7), cutText: "cab a" });
});

test("one endless word is told whole", () => {
  expect(tokenizer.encode("abcabc").cutText).toBe("abcabc");
});

test("a word that was added to the vocabulary is one token, whatever stands around it", () => {
  const json = JSON.parse(new TextDecoder().decode(FILES["tokenizer/tokenizer.json"]));
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: false };
  json.added_tokens = [...json.added_tokens, { id: 8, content: "<cat-toy>", ...flags }];
  const taught = new PromptTokenizer(new TextEncoder().encode(JSON.stringify(json)), makeManifest().tokenizer);
  expect([...taught.encode("a <Cat-Toy>b").tokenIds]).toEqual([6, 0, 8, 1, 7]);
});

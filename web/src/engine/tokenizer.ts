/** Turn text into token ids. Twin: mlc_controlnet/runtime/tokenizer.py. */

import { Tokenizer } from "@huggingface/tokenizers";
import { parseJson } from "./json_record.ts";
import type { Manifest } from "./manifest.ts";

/** The part of tokenizer.json that is read here; the package reads the rest. */
interface TokenizerConfig {
  readonly normalizer?: Normalizer | null;
  readonly added_tokens?: readonly AddedToken[];
}

interface Normalizer {
  readonly type: string;
  readonly normalizers?: readonly Normalizer[];
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly single_word: boolean;
}

/**
 * The model's own tokenizer.json, with the model's own begin, end and padding tokens.
 *
 * Words that were added to the vocabulary, such as the names of textual inversions, are found here and not by the
 * libraries, which differ in what they read as a word of its own. As in diffusers, `<name>` stands for the vectors
 * `<name>`, `<name>_1`, `<name>_2` and so on.
 */
export class PromptTokenizer {
  /** The number of tokens that a text can have at most: T - 2. */
  readonly room: number;
  /** The ids of a comma. */
  readonly comma: readonly number[];
  private readonly tokenizer: Tokenizer;
  private readonly lowers: boolean;
  private readonly addedWords: RegExp | undefined;
  private readonly addedIds: readonly (readonly number[])[];

  constructor(
    tokenizerJson: Uint8Array,
    readonly spec: Manifest["tokenizer"],
  ) {
    const config = parseJson(tokenizerJson, spec.file, "a tokenizer") as TokenizerConfig;
    const added = (config.added_tokens ?? []).filter(({ special }) => !special);
    added.sort((one, other) => other.content.length - one.content.length); // the longest word is found first
    const special = (config.added_tokens ?? []).filter((token) => token.special);
    this.tokenizer = new Tokenizer({ ...config, added_tokens: special }, {});
    this.lowers = lowers(config);
    this.addedWords = patternOf(added, this.lowers);
    this.addedIds = added.map(({ content }) => vectorsOf(content, added));
    this.room = spec.max_length - 2;
    this.comma = this.tokensWithoutAdded(",").flat();
  }

  /** Tokenize: the ids of each token, several for a textual inversion of several vectors. */
  tokens(text: string): (readonly number[])[] {
    const tokens: (readonly number[])[] = [];
    let end = 0;
    for (const found of this.addedWords === undefined ? [] : text.matchAll(this.addedWords)) {
      const group = found.slice(1).findIndex((word) => word !== undefined);
      tokens.push(...this.tokensWithoutAdded(text.slice(end, found.index)), this.addedIds[group]);
      end = found.index + found[0].length;
    }
    return [...tokens, ...this.tokensWithoutAdded(text.slice(end))];
  }

  /** Return the words of `text` from the first one that is not whole among its first `count` ids. */
  wordsAfter(text: string, count: number): string {
    const words = [...text.matchAll(/\S+/gu)];
    const idsThrough = (word: RegExpExecArray) => this.tokens(text.slice(0, word.index + word[0].length)).flat().length;
    let [fitting, above] = [0, words.length];
    while (fitting < above) {
      const middle = (fitting + above) >> 1;
      if (idsThrough(words[middle]) <= count) fitting = middle + 1;
      else above = middle;
    }
    return fitting < words.length ? text.slice(words[fitting].index) : "";
  }

  /**
   * The package differs from the tokenizers library that models are trained with in two ways. It lowers the last Σ of a
   * word to ς, so Σ is replaced first. It reads a text that lowers to a special token as that token. The space at
   * the end prevents that: no CLIP token ends in white space.
   */
  private tokensWithoutAdded(text: string): number[][] {
    const sameLowerCase = this.lowers ? text.replaceAll("Σ", "σ") : text;
    return this.tokenizer.encode(`${sameLowerCase} `, { add_special_tokens: false }).ids.map((id: number) => [id]);
  }
}

/** Return the ids of `name`, `name_1`, `name_2` and so on, as far as they were added. */
function vectorsOf(name: string, added: readonly AddedToken[]): number[] {
  const ids = new Map(added.map(({ content, id }) => [content, id]));
  const vectors: number[] = [];
  for (let id = ids.get(name); id !== undefined; id = ids.get(`${name}_${vectors.length}`)) vectors.push(id);
  return vectors;
}

function lowers({ normalizer }: TokenizerConfig): boolean {
  return [normalizer, ...(normalizer?.normalizers ?? [])].some((one) => one?.type === "Lowercase");
}

/** Return a pattern in which group n matches the nth added word; undefined if there is none. */
function patternOf(added: readonly AddedToken[], lowers: boolean): RegExp | undefined {
  const groups = added.map(({ content, single_word }) => {
    const word = content.replace(/[\\^$.*+?()[\]{}|/]/gu, "\\$&");
    return single_word ? `(?<![\\p{L}\\p{N}_])(${word})(?![\\p{L}\\p{N}_])` : `(${word})`;
  });
  return groups.length > 0 ? new RegExp(groups.join("|"), lowers ? "giu" : "gu") : undefined;
}

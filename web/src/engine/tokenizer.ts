/** Turn prompts into token ids. Twin: mlc_controlnet/runtime/tokenizer.py. */

import { Tokenizer } from "@huggingface/tokenizers";
import { parseJson } from "./json_record.ts";
import type { Manifest } from "./manifest.ts";

export interface TokenizedPrompt {
  /** int32 [1, T]: begin, the prompt, end, then padding. */
  readonly tokenIds: Int32Array<ArrayBuffer>;
  /** The words at the end of the prompt that did not fit; "" if all of it did. */
  readonly cutText: string;
}

/** The part of tokenizer.json that is read here; the package reads the rest. */
interface TokenizerConfig {
  readonly normalizer?: Normalizer | null;
}

interface Normalizer {
  readonly type: string;
  readonly normalizers?: readonly Normalizer[];
}

/** The model's own tokenizer.json, with the model's own begin, end and padding tokens. */
export class PromptTokenizer {
  private readonly tokenizer: Tokenizer;
  private readonly lowers: boolean;

  constructor(
    tokenizerJson: Uint8Array,
    private readonly spec: Manifest["tokenizer"],
  ) {
    const config = parseJson(tokenizerJson, spec.file, "a tokenizer") as TokenizerConfig;
    this.tokenizer = new Tokenizer(config, {});
    const normalizers = [config.normalizer, ...(config.normalizer?.normalizers ?? [])];
    this.lowers = normalizers.some((normalizer) => normalizer?.type === "Lowercase");
  }

  /** Tokenize. A prompt of more than T tokens loses its end. */
  encode(prompt: string): TokenizedPrompt {
    const { max_length, begin_id, end_id, pad_id } = this.spec;
    const room = max_length - 2; // begin and end
    const ids = this.ids(prompt);
    const tokenIds = new Int32Array(max_length).fill(pad_id);
    tokenIds.set([begin_id, ...ids.slice(0, room), end_id]);
    return { tokenIds, cutText: ids.length > room ? this.wordsAfter(prompt, room) : "" };
  }

  /** Return the words of `prompt` from the first one that does not fit whole. The package does not report offsets. */
  private wordsAfter(prompt: string, room: number): string {
    for (const word of prompt.matchAll(/\S+/g)) {
      const throughWord = prompt.slice(0, word.index + word[0].length);
      if (this.ids(throughWord).length > room) return prompt.slice(word.index);
    }
    return prompt;
  }

  /**
   * The package differs from the tokenizers library that models are trained with in two ways. It lowers the last Σ of a
   * word to ς, so Σ is replaced first. It reads a text that lowers to a special token as that token. The space at
   * the end prevents that: no CLIP token ends in white space.
   */
  private ids(text: string): number[] {
    const sameLowerCase = this.lowers ? text.replaceAll("Σ", "σ") : text;
    return this.tokenizer.encode(`${sameLowerCase} `, { add_special_tokens: false }).ids;
  }
}

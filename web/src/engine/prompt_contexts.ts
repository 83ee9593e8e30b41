/**
 * From a request's prompts to the contexts of a picture, with what Stable Diffusion XL reads besides.
 *
 * Twin: mlc_controlnet/runtime/prompt_contexts.py, the same functions in the same order.
 */

import type { Components, Context } from "./components.ts";
import type { Manifest } from "./manifest.ts";
import { embedsGuidance, maxChunks, readsTimeIds } from "./model_traits.ts";
import { type NoticeListener, noticeOf } from "./notices.ts";
import { words } from "./option_text.ts";
import { encodePrompt, padChunks, type TokenizedPrompt, tokenizePrompt } from "./prompts.ts";
import type { GenerateRequest, Settings } from "./request.ts";
import { POOLED, timeIds } from "./time_ids.ts";
import type { PromptTokenizer } from "./tokenizer.ts";
import { contextShape } from "./variant.ts";

type Name = "prompt" | "negativePrompt";

/**
 * The prompt's context, with guidance the negative prompt's before it.
 *
 * `tokenizers` has one for each text encoder.
 */
export async function encodePrompts(
  components: Components,
  manifest: Manifest,
  tokenizers: readonly PromptTokenizer[],
  settings: Settings,
  request: GenerateRequest,
  onNotice: NoticeListener,
): Promise<Context[]> {
  const isGuided = settings.guidanceScale > 1 && !embedsGuidance(manifest);
  const names: Name[] = isGuided ? ["negativePrompt", "prompt"] : ["prompt"];
  const isZero = (name: Name) => request[`${name}Embeds`] == null && meansZeros(name, settings, manifest);
  const texts = names.filter((name) => request[`${name}Embeds`] == null && !isZero(name));
  // Beside an encoded prompt a text gets its length, as in diffusers.
  const [, length, width] = contextShape(manifest);
  const given = Math.max(...names.map((name) => (request[`${name}Embeds`]?.length ?? 0) / length / width));
  const chunks = given || maxChunks(manifest);
  const tokenized = new Map<Name, TokenizedPrompt[]>();
  for (const name of texts) {
    const written = [
      [name, settings[name]],
      [`${name}2`, settings[`${name}2`]],
    ] as const;
    const prompts = tokenizers.map((tokenizer, i) => {
      const [own, text] = written[i];
      const prompt = tokenizePrompt(text || settings[name], tokenizer, chunks, settings.promptSyntax, words(own));
      const tokens = prompt.chunks.length * (manifest.tokenizer.max_length - 2) + 2;
      const notice = noticeOf("prompt-cut", { subject: words(own), tokens, cutText: prompt.cutText });
      if (prompt.cutText && text) onNotice(notice.text, notice); // a second text that is the first one is cut as that
      return prompt;
    });
    tokenized.set(name, prompts);
  }
  const count = Math.max(given, ...[...tokenized.values()].flat().map((prompt) => prompt.chunks.length));
  const contexts = new Map<Name, Context>();
  try {
    for (const [name, prompts] of tokenized) {
      contexts.set(name, await encode(components, prompts, tokenizers, count, settings, name));
    }
    for (const name of names) {
      const embeds = request[`${name}Embeds`];
      if (embeds == null) continue;
      contexts.set(name, await components.context(embeds, request[POOLED[`${name}Embeds`]] ?? undefined));
    }
    for (const name of names.filter(isZero)) {
      contexts.set(name, await zerosLike(components, contexts.get("prompt") as Context));
    }
  } catch (error) {
    for (const context of contexts.values()) context.dispose();
    throw error;
  }
  return withTimeIds(
    names.map((name) => contexts.get(name) as Context),
    settings,
    manifest,
  );
}

/** Give the contexts the time ids of this size of picture, if the model reads them. */
export function withTimeIds(contexts: readonly Context[], settings: Settings, manifest: Manifest): Context[] {
  if (!readsTimeIds(manifest)) return [...contexts];
  const last = contexts.length - 1;
  return contexts.map((context, i) => Object.assign(context, { timeIds: timeIds(settings, i < last) }));
}

/**
 * Return whether zeros take the place of an encoded text: of an empty negative prompt, if the model says so.
 *
 * To diffusers a negative prompt that is left out is not an empty one. Here both are the same, as in sd-webui.
 */
function meansZeros(name: Name, { negativePrompt, negativePrompt2 }: Settings, { model }: Manifest): boolean {
  return model.zeros_for_empty_prompt && name === "negativePrompt" && !negativePrompt && !negativePrompt2;
}

async function encode(
  components: Components,
  prompts: readonly TokenizedPrompt[],
  tokenizers: readonly PromptTokenizer[],
  count: number,
  { clipSkip }: Settings,
  name: Name,
): Promise<Context> {
  const [first, second] = prompts.map((prompt, i) => padChunks([prompt], tokenizers[i], count)[0]);
  return encodePrompt(components, first, clipSkip, words(name), second);
}

async function zerosLike(components: Components, context: Context): Promise<Context> {
  const [values, textEmbeds] = await context.read();
  return components.context(new Float32Array(values.length), textEmbeds && new Float32Array(textEmbeds.length));
}

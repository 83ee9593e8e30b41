"""From a request's prompts to the contexts of a picture, with what Stable Diffusion XL reads besides.

Twin: web/src/engine/prompt_contexts.ts, the same functions in the same order.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.notices import Notice
from mlc_controlnet.runtime.engine import Context, Engine
from mlc_controlnet.runtime.option_text import words
from mlc_controlnet.runtime.prompts import TokenizedPrompt, encode_prompt, pad_chunks, tokenize_prompt
from mlc_controlnet.runtime.request import GenerateRequest, Settings
from mlc_controlnet.runtime.time_ids import POOLED, time_ids
from mlc_controlnet.runtime.tokenizer import PromptTokenizer


def encode_prompts(
    engine: Engine, tokenizers: Sequence[PromptTokenizer], settings: Settings, request: GenerateRequest
) -> tuple[list[Context], tuple[str, ...]]:
    """Encode the prompt, and with guidance the negative prompt before it. Returns contexts and notices of cuts.

    tokenizers: one for each text encoder.
    """
    manifest = engine.bundle.manifest
    guided = settings.guidance_scale > 1 and not manifest.embeds_guidance
    names = ["negative_prompt", "prompt"] if guided else ["prompt"]
    embeds = {name: getattr(request, f"{name}_embeds") for name in names}
    is_zero = {name: embeds[name] is None and _means_zeros(name, settings, manifest) for name in names}
    texts = [name for name in names if embeds[name] is None and not is_zero[name]]
    # Beside an encoded prompt a text gets its length, as in diffusers.
    length = manifest.tokenizer.max_length
    given = max(0 if value is None else value.shape[1] // length for value in embeds.values())
    chunks, notices = given or manifest.max_chunks, []
    tokenized: dict[str, list[TokenizedPrompt]] = {}
    for name in texts:
        written = {name: getattr(settings, name), f"{name}_2": getattr(settings, f"{name}_2")}
        tokenized[name] = []
        for (own, text), tokenizer in zip(written.items(), tokenizers, strict=False):
            prompt = tokenize_prompt(text or written[name], tokenizer, chunks, settings.prompt_syntax, words(own))
            tokenized[name].append(prompt)
            if prompt.cut_text and text:  # a second text that is the first one is cut as that
                tokens = len(prompt.chunks) * (length - 2) + 2  # of a chunk, besides begin and end
                text = f"{words(own)}: longer than {tokens} tokens, this end was cut: {prompt.cut_text!r}"
                values = {"subject": words(own), "tokens": tokens, "cutText": prompt.cut_text}
                notices.append(Notice(text, "prompt-cut", values))
    count = max([given, *(len(prompt.chunks) for prompts in tokenized.values() for prompt in prompts)])
    contexts = {
        name: _encode(engine, prompts, tokenizers, count, settings, name) for name, prompts in tokenized.items()
    }
    for name in names:
        if embeds[name] is not None:
            contexts[name] = engine.context(embeds[name], getattr(request, POOLED[f"{name}_embeds"]))
    for name in names:
        if is_zero[name]:
            contexts[name] = _zeros_like(engine, contexts["prompt"])
    return with_time_ids([contexts[name] for name in names], settings, manifest), tuple(notices)


def with_time_ids(contexts: Sequence[Context], settings: Settings, manifest: Manifest) -> list[Context]:
    """Return the contexts with the time ids of this size of picture, for a model that reads them."""
    if not manifest.reads_time_ids:
        return list(contexts)
    last = len(contexts) - 1
    return [dataclasses.replace(context, time_ids=time_ids(settings, i < last)) for i, context in enumerate(contexts)]


def _means_zeros(name: str, settings: Settings, manifest: Manifest) -> bool:
    """Return whether zeros take the place of an encoded text: of an empty negative prompt, if the model says so.

    To diffusers a negative prompt that is left out is not an empty one. Here both are the same, as in sd-webui.
    """
    is_empty = not settings.negative_prompt and not settings.negative_prompt_2
    return manifest.model.zeros_for_empty_prompt and name == "negative_prompt" and is_empty


def _encode(
    engine: Engine,
    prompts: Sequence[TokenizedPrompt],
    tokenizers: Sequence[PromptTokenizer],
    count: int,
    settings: Settings,
    name: str,
) -> Context:
    first, *others = (
        pad_chunks([prompt], tokenizer, count)[0] for prompt, tokenizer in zip(prompts, tokenizers, strict=True)
    )
    return encode_prompt(engine, first, settings.clip_skip, words(name), *others)


def _zeros_like(engine: Engine, context: Context) -> Context:
    shapes = (context.tensor.shape, context.text_embeds.shape)
    return engine.context(*(np.zeros(tuple(shape), np.float32) for shape in shapes))

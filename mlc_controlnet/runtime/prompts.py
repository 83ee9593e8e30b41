"""Turn prompts of any length into chunks, and their weights into contexts.

The rules are those of sd-webui's chunks and of its `EmphasisOriginal` (AUTOMATIC1111, modules sd_hijack_clip and
sd_emphasis), with the defaults of its settings.

Twin: web/src/engine/prompts.ts, the same functions in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.engine import Context, Engine
from mlc_controlnet.runtime.prompt_syntax import PLAIN, WEBUI, Segment, parse_prompt
from mlc_controlnet.runtime.tokenizer import PromptTokenizer

FLOAT16_MAX = 65504.0
COMMA_BACKTRACK = 20  # tokens; sd-webui's setting "Prompt word wrap length limit"


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once."""

    token_ids: np.ndarray  # int32 [1, T]: begin, words, end, then padding
    weights: np.ndarray  # float32 [T]; 1 for begin, end and padding
    end_position: int  # of the first end token

    @property
    def is_weighted(self) -> bool:
        """Whether a weight differs from 1."""
        return bool((self.weights != 1).any())


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as chunks, and the part of it that was cut off."""

    chunks: tuple[Chunk, ...]  # one at least
    cut_text: str  # the words at the end of the prompt that did not fit; "" if all of it did


@dataclass(frozen=True)
class _Token:
    """A token in a chunk, and its place in the prompt."""

    ids: tuple[int, ...]  # several for a textual inversion of several vectors
    weight: float
    part: int
    segment: int
    ids_before: int  # in its segment


def tokenize_prompt(
    prompt: str, tokenizer: PromptTokenizer, max_chunks: int, syntax: str = WEBUI, subject: str = "prompt"
) -> TokenizedPrompt:
    """Tokenize a prompt into chunks of T - 2 tokens; it loses what exceeds `max_chunks`, or one chunk if it is plain.

    As in sd-webui, up to COMMA_BACKTRACK tokens after a comma move to the next chunk together.

    Raises:
        UserError: as `parse_prompt`.
    """
    is_plain = syntax == PLAIN
    parts = [[Segment(prompt, 1.0)]] if is_plain else parse_prompt(prompt, subject)
    chunks = _lay_out(parts, tokenizer, wraps=not is_plain)
    kept = 1 if is_plain else max_chunks
    cut = [token for chunk in chunks[kept:] for token in chunk]
    cut_text = _text_from(cut[0], parts, tokenizer) if cut else ""
    return TokenizedPrompt(tuple(_make_chunk(tokens, tokenizer) for tokens in chunks[:kept]), cut_text)


def pad_chunks(prompts: Sequence[TokenizedPrompt], tokenizer: PromptTokenizer, least: int = 1) -> list[TokenizedPrompt]:
    """Append empty chunks until all prompts have as many as the longest, and `least`: contexts are of one length."""
    count = max([least, *(len(prompt.chunks) for prompt in prompts)])
    empty = _make_chunk([], tokenizer)
    return [
        TokenizedPrompt((*prompt.chunks, *[empty] * (count - len(prompt.chunks))), prompt.cut_text)
        for prompt in prompts
    ]


def encode_prompt(
    engine: Engine,
    prompt: TokenizedPrompt,
    clip_skip: int = 0,
    subject: str = "prompt",
    prompt_2: TokenizedPrompt | None = None,
) -> Context:
    """Encode each chunk, apply its weights and put the chunks' contexts one after another: [1, N T, D].

    prompt_2: for a second text encoder, as many chunks. The pooled output is that of its first chunk, as in sd-webui.

    Raises:
        UserError: as `apply_weights`.
    """
    if prompt_2 is not None:
        return _encode_for_two(engine, prompt, prompt_2, clip_skip, subject)
    contexts = [engine.text_encoder(chunk.token_ids, clip_skip) for chunk in prompt.chunks]
    if len(contexts) == 1 and not prompt.chunks[0].is_weighted:
        return contexts[0]
    weighted = [
        apply_weights(context.tensor.numpy()[0], chunk.weights, subject)
        for context, chunk in zip(contexts, prompt.chunks, strict=True)
    ]
    return engine.context(np.concatenate(weighted)[None])


def _encode_for_two(
    engine: Engine, prompt: TokenizedPrompt, prompt_2: TokenizedPrompt, clip_skip: int, subject: str
) -> Context:
    """Encode for two text encoders, whose contexts are weighted each on its own and lie side by side along D."""
    contexts = []
    for chunk, chunk_2 in zip(prompt.chunks, prompt_2.chunks, strict=True):
        first = engine.text_encoder(chunk.token_ids, clip_skip)
        width = first.tensor.shape[2]
        if chunk.is_weighted:
            first = engine.context(apply_weights(first.tensor.numpy()[0], chunk.weights, subject)[None])
        contexts.append(engine.text_encoder_2(chunk_2.token_ids, chunk_2.end_position, first, clip_skip))
    if len(contexts) == 1 and not prompt_2.chunks[0].is_weighted:
        return contexts[0]
    weighted = []
    for context, chunk_2 in zip(contexts, prompt_2.chunks, strict=True):
        values = context.tensor.numpy()[0]
        second = apply_weights(values[:, width:], chunk_2.weights, subject)
        weighted.append(np.concatenate([values[:, :width], second], axis=1))
    return engine.context(np.concatenate(weighted)[None], contexts[0].text_embeds.numpy())


def apply_weights(context: np.ndarray, weights: np.ndarray, subject: str = "prompt") -> np.ndarray:
    """Multiply each token's row by its weight, then restore the mean over the chunk.

    Args:
        context: of one chunk, float [T, D].
        weights: [T].

    Returns:
        float32 [T, D].

    Raises:
        UserError: names `subject`; the weights cancel out, so that the mean cannot be restored in float16.
    """
    plain = context.astype(np.float64)
    weighted = plain * weights.astype(np.float64)[:, None]
    mean = weighted.mean()
    restored = weighted * (plain.mean() / mean if mean != 0 else np.inf)
    if np.isfinite(plain).all() and not np.abs(restored).max() <= FLOAT16_MAX:  # NaN is the text encoder's mistake
        raise UserError(
            subject,
            "weights that cancel out",
            "a weighted context with a mean that is not about 0",
            "choose weights closer to 1",
        )
    return restored.astype(np.float32)


def _tokens(parts: list[list[Segment]], tokenizer: PromptTokenizer, part: int) -> Iterator[_Token]:
    for number, segment in enumerate(parts[part]):
        before = 0
        for ids in tokenizer.tokens(segment.text):
            yield _Token(ids, segment.weight, part, number, before)
            before += len(ids)


def _lay_out(parts: list[list[Segment]], tokenizer: PromptTokenizer, wraps: bool) -> list[list[_Token]]:
    chunks: list[list[_Token]] = []
    for part in range(len(parts)):
        chunks.append([])
        for token in _tokens(parts, tokenizer, part):
            if wraps and _count_ids(chunks[-1]) == tokenizer.room and token.ids != tokenizer.comma:
                after = _after_comma(chunks[-1], tokenizer.comma)
                if after is not None:
                    chunks[-1:] = [chunks[-1][:after], chunks[-1][after:]]
            if _count_ids(chunks[-1]) + len(token.ids) > tokenizer.room:
                chunks.append([])
            chunks[-1].append(token)
    return chunks if chunks[-1] or len(chunks) == 1 else chunks[:-1]


def _count_ids(tokens: list[_Token]) -> int:
    return sum(len(token.ids) for token in tokens)


def _after_comma(tokens: list[_Token], comma: tuple[int, ...] | None) -> int | None:
    """Return the place after the last comma of a full chunk; None if that is too far from the end."""
    distance = 0
    for place in reversed(range(len(tokens))):
        distance += len(tokens[place].ids)
        if distance > COMMA_BACKTRACK:
            return None
        if tokens[place].ids == comma:
            return place + 1
    return None


def _make_chunk(tokens: list[_Token], tokenizer: PromptTokenizer) -> Chunk:
    spec = tokenizer.spec
    ids = [spec.begin_id, *(token_id for token in tokens for token_id in token.ids), spec.end_id]
    token_ids = np.full((1, spec.max_length), spec.pad_id, np.int32)
    token_ids[0, : len(ids)] = ids
    weights = np.ones(spec.max_length, np.float32)
    weights[1 : len(ids) - 1] = [token.weight for token in tokens for _ in token.ids]
    return Chunk(token_ids, weights, len(ids) - 1)


def _text_from(token: _Token, parts: list[list[Segment]], tokenizer: PromptTokenizer) -> str:
    """Return the words from `token` to the end of the prompt, without the syntax of weights."""
    segment, *rest = parts[token.part][token.segment :]
    texts = [tokenizer.words_after(segment.text, token.ids_before) + "".join(after.text for after in rest)]
    texts += ["".join(segment.text for segment in part) for part in parts[token.part + 1 :]]
    return " BREAK ".join(texts).strip()

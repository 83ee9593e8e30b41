"""Prompt to token ids.

Twin: web/src/engine/tokenizer.ts.
"""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from mlc_controlnet.bundle.manifest import TokenizerSpec


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as token ids, and the part of it that was cut off."""

    token_ids: np.ndarray  # int32 [1, T]: begin, the prompt, end, then padding
    cut_text: str  # the end of the prompt that did not fit; "" if all of it did


class PromptTokenizer:
    """The model's own tokenizer.json, with the model's own begin, end and padding tokens."""

    def __init__(self, tokenizer_json: bytes, spec: TokenizerSpec) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_truncation()  # `encode` does both: it has to know which text was cut
        self._tokenizer.no_padding()
        self._spec = spec

    def encode(self, prompt: str) -> TokenizedPrompt:
        """Tokenize. A prompt of more than T tokens loses its end."""
        spec = self._spec
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        room = spec.max_length - 2  # begin and end
        cut_text = prompt[encoding.offsets[room][0] :] if len(encoding.ids) > room else ""
        ids = [spec.begin_id, *encoding.ids[:room], spec.end_id]
        ids += [spec.pad_id] * (spec.max_length - len(ids))
        return TokenizedPrompt(np.array([ids], np.int32), cut_text)

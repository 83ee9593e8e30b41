"""Prompt to token ids."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from mlc_controlnet.bundle.manifest import TokenizerSpec
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class TokenizedPrompt:
    token_ids: np.ndarray  # int32 [1, T]: begin, the prompt, end, then padding
    cut_text: str  # the end of the prompt that did not fit, "" where all of it did


class PromptTokenizer:
    """The model's own tokenizer.json, with the model's own begin, end and padding."""

    def __init__(self, tokenizer_json: bytes, spec: TokenizerSpec) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_truncation()  # both are done here, where the text that is cut can be told
        self._tokenizer.no_padding()
        self._spec = spec

    def encode(self, prompt: str, subject: str = "prompt") -> TokenizedPrompt:
        """Tokenize; what does not fit into T tokens is cut off at the end.

        `subject` names the text in errors. Raises UserError for what is not text.
        """
        _check_is_text(prompt, subject)
        spec = self._spec
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        room = spec.max_length - 2  # begin and end
        cut_text = prompt[encoding.offsets[room][0] :] if len(encoding.ids) > room else ""
        ids = [spec.begin_id, *encoding.ids[:room], spec.end_id]
        ids += [spec.pad_id] * (spec.max_length - len(ids))
        return TokenizedPrompt(np.array([ids], np.int32), cut_text)


def _check_is_text(prompt: str, subject: str) -> None:
    if not isinstance(prompt, str):
        raise UserError(subject, type(prompt).__name__, "one string", "pass the text itself, one picture a call")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError(subject, "bytes that are no UTF-8", "text", "type it in a UTF-8 terminal") from None

"""Text to token ids.

Twin: web/src/engine/tokenizer.ts.
"""

import bisect
import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from mlc_controlnet.bundle.manifest import TokenizerSpec


class PromptTokenizer:
    """The model's own tokenizer.json, with the model's own begin, end and padding tokens.

    Words that were added to the vocabulary, such as the names of textual inversions, are found here and not by the
    libraries, which differ in what they read as a word of its own. As in diffusers, `<name>` stands for the vectors
    `<name>`, `<name>_1`, `<name>_2` and so on.

    Attributes:
        spec: the manifest's.
        room: the number of tokens that a text can have at most: T - 2.
        comma: the ids of a comma.
    """

    def __init__(self, tokenizer_json: bytes, spec: TokenizerSpec) -> None:
        config = json.loads(tokenizer_json)
        added = [token for token in config.get("added_tokens", ()) if not token["special"]]
        added.sort(key=lambda token: -len(token["content"]))  # the longest word is found first
        if added:
            config["added_tokens"] = [token for token in config["added_tokens"] if token["special"]]
            tokenizer_json = json.dumps(config).encode()
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_truncation()  # who calls has to know which text was cut
        self._tokenizer.no_padding()
        self._added_words = _pattern_of(added, _lowers(config))
        self._added_ids = [_vectors_of(token["content"], added) for token in added]
        self.spec = spec
        self.room = spec.max_length - 2
        self.comma = tuple(self._tokenizer.encode(",", add_special_tokens=False).ids)

    def tokens(self, text: str) -> list[tuple[int, ...]]:
        """Tokenize: the ids of each token, several for a textual inversion of several vectors."""
        tokens: list[tuple[int, ...]] = []
        end = 0
        for found in self._added_words.finditer(text) if self._added_words is not None else ():
            tokens += self._tokens_without_added(text[end : found.start()])
            assert found.lastindex is not None, "every word is a group"
            tokens.append(self._added_ids[found.lastindex - 1])
            end = found.end()
        return tokens + self._tokens_without_added(text[end:])

    def words_after(self, text: str, count: int) -> str:
        """Return the words of `text` from the first one that is not whole among its first `count` ids."""
        words = list(re.finditer(r"\S+", text))

        def ids_through(word: re.Match[str]) -> int:
            return sum(map(len, self.tokens(text[: word.end()])))

        fitting = bisect.bisect_right(words, count, key=ids_through)
        return text[words[fitting].start() :] if fitting < len(words) else ""

    def _tokens_without_added(self, text: str) -> list[tuple[int, ...]]:
        return [(token_id,) for token_id in self._tokenizer.encode(text, add_special_tokens=False).ids]


def _vectors_of(name: str, added: list[dict[str, Any]]) -> tuple[int, ...]:
    """Return the ids of `name`, `name_1`, `name_2` and so on, as far as they were added."""
    ids = {token["content"]: int(token["id"]) for token in added}
    vectors = [ids[name]]
    while (token_id := ids.get(f"{name}_{len(vectors)}")) is not None:
        vectors.append(token_id)
    return tuple(vectors)


def _lowers(config: Mapping[str, Any]) -> bool:
    normalizer = config.get("normalizer") or {}
    return any(one.get("type") == "Lowercase" for one in (normalizer, *normalizer.get("normalizers", ())))


def _pattern_of(added: list[dict[str, Any]], lowers: bool) -> re.Pattern[str] | None:
    """Return a pattern in which group n matches the nth added word; None if there is none."""
    words = [re.escape(token["content"]) for token in added]
    groups = [
        rf"(?<!\w)({word})(?!\w)" if token["single_word"] else f"({word})"
        for word, token in zip(words, added, strict=True)
    ]
    return re.compile("|".join(groups), re.IGNORECASE if lowers else 0) if groups else None

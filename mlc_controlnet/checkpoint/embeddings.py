"""Merge textual inversions (arXiv 2208.01618) into a model: words of their own, and rows of the text encoder's table.

A file holds one or several vectors, each as wide as the table. Several vectors get the words `name`, `name_1`, `name_2`
and so on, as in diffusers; a prompt says `name`, and the tokenizers of the runtime put all vectors in its place.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlc_controlnet.checkpoint.hub import HubFile, download, list_files, parse_hub_id
from mlc_controlnet.checkpoint.source import PartSource, TokenizerSource
from mlc_controlnet.checkpoint.weight_file import SUFFIXES, read_content
from mlc_controlnet.config import EmbeddingOption
from mlc_controlnet.errors import UserError

TABLE = "embeddings.token_embedding.weight"
XL_KEYS = ("clip_l", "clip_g")  # the tensors of a file for the first and the second text encoder
HUB_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")  # as diffusers saves them
WEBUI_TENSOR = "emb_params"  # sd-webui's only tensor in a safetensors file
_SYNTAX = re.compile(r"[()\[\]\\]")  # has a meaning in prompts
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")  # Python's stand-ins for the bytes of such a file's name


@dataclass(frozen=True)
class Embedding:
    """A textual inversion: its word in prompts, and its vectors.  # [N, D]"""

    where: str  # for errors
    token: str
    vectors: torch.Tensor


Encoders = dict[str, tuple[TokenizerSource, PartSource]]  # by the part's name: text_encoder, text_encoder_2


def merge_embeddings(options: Sequence[EmbeddingOption], encoders: Encoders) -> Encoders:
    """Add the files' words to the tokenizers, and their vectors to the text encoders' tables.

    A model with two text encoders needs a file with vectors for each.

    Raises:
        UserError: a file is damaged or holds no textual inversion, its vectors have another width or are too many for
            one prompt, or its word is taken.
    """
    if not options:
        return encoders
    keys = XL_KEYS if len(encoders) > 1 else (None,)
    merged: Encoders = {}
    for (part, (tokenizer, text_encoder)), key in zip(encoders.items(), keys, strict=True):
        vocabulary = _Vocabulary(tokenizer.json)
        rows: dict[int, torch.Tensor] = {}  # id -> vector
        for option in options:
            embedding = read_embedding(option, key)
            _check_fits(embedding, text_encoder.config)
            _check_word(embedding, vocabulary)
            rows.update(zip(vocabulary.add(embedding), embedding.vectors, strict=True))
        merged[part] = dataclasses.replace(tokenizer, json=vocabulary.to_json()), _with_rows(text_encoder, rows)
    return merged


def read_embedding(option: EmbeddingOption, key: str | None = None) -> Embedding:
    """Read a file in diffusers' form, `{word: vectors}`, or in sd-webui's, `{"string_to_param": {"*": vectors}}`.

    For Stable Diffusion XL, it is a file with a tensor for each text encoder, of which `key` is read.

    The word is that of the option, else diffusers' own in its form, else the name of the file without its suffix.

    Raises:
        UserError: there is no such file, it is damaged, or it holds no vectors or those of several words.
    """
    path = _find(option.file)
    where = f"--embedding {path}"
    word, tensor = _word_and_tensor(read_content(path), path, key)
    token = (option.token if option.token is not None else word).strip()
    vectors = tensor.detach().float()
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(where, f"a tensor {list(tensor.shape)}", "vectors [N, D]", "take a textual inversion")
    if not torch.isfinite(vectors).all():
        raise UserError(where, "NaN or infinity", "finite numbers", "copy or download it again")
    return Embedding(where, token, vectors)


class _Vocabulary:
    """A tokenizer.json that words are added to."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._config: dict[str, Any] = json.loads(tokenizer_json)
        self.added: dict[str, int] = {t["content"]: t["id"] for t in self._config.get("added_tokens", ())}
        self.words: dict[str, int] = self._config["model"]["vocab"] | self.added

    def has(self, word: str) -> bool:
        """Return whether a prompt can already say `word` and mean something else. CLIP marks the end of a word."""
        return any(word.lower() + end in self.words for end in ("", "</w>")) or word in self.words

    def add(self, embedding: Embedding) -> list[int]:
        """Add a word for each vector. Returns their ids, which follow those of the vocabulary."""
        name = embedding.token
        first = max(self.words.values()) + 1
        ids = list(range(first, first + len(embedding.vectors)))
        for number, token_id in enumerate(ids):
            word = name if number == 0 else f"{name}_{number}"
            self.words[word] = self.added[word] = token_id
            self._config.setdefault("added_tokens", []).append(_added_token(word, token_id))
        return ids

    def to_json(self) -> bytes:
        return json.dumps(self._config, ensure_ascii=False).encode()


def _added_token(word: str, token_id: int) -> dict[str, Any]:
    """Describe a word. `<cat>` is found everywhere, as in diffusers; `cat` not within `concatenate`, as in sd-webui."""
    is_single_word = re.fullmatch(r"\w|\w.*\w", word, re.DOTALL) is not None
    flags = {"single_word": is_single_word, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"id": token_id, "content": word, **flags}


def _find(file: str) -> Path:
    path = Path(file)
    hub = None if path.exists() else parse_hub_id(file)
    if hub is not None and hub.file:
        return download(hub)
    names = list_files(hub) if hub is not None else [name for name in HUB_FILES if (path / name).is_file()]
    if path.is_file():
        return path
    for name in HUB_FILES:
        if name in names:
            return path / name if hub is None else download(HubFile(hub.repo, name, hub.revision))
    got = f"{file!r}, which " + (f"has no {HUB_FILES[0]}" if hub or path.is_dir() else "does not exist")
    raise UserError("--embedding", got, f"a file ({', '.join(SUFFIXES)}) or a hub id", "check the spelling")


def _word_and_tensor(content: object, path: Path, key: str | None) -> tuple[str, torch.Tensor]:
    """Return the file's own word, or the name of the file, and the one tensor, or that of `key`."""
    of_two = set(XL_KEYS) & set(content) if isinstance(content, Mapping) else set()
    if key is not None:
        if not isinstance(content, Mapping) or not isinstance(content.get(key), torch.Tensor):
            got = f"only {', '.join(sorted(of_two))}" if of_two else "a textual inversion for one text encoder"
            wanted = f"{' and '.join(XL_KEYS)}, vectors for both text encoders of Stable Diffusion XL"
            raise UserError(f"--embedding {path}", got, wanted, "take one that was trained for this base model")
        return path.stem, content[key]
    if of_two:
        wanted = "one for Stable Diffusion 1.x or 2.x"
        raise UserError(f"--embedding {path}", "a textual inversion of SDXL", wanted, "take one for this base model")
    is_webui = isinstance(content, Mapping) and "string_to_param" in content
    words = content["string_to_param"] if is_webui else content  # type: ignore[index]
    if isinstance(words, torch.nn.ParameterDict):  # sd-webui of 2022
        words = dict(words.items())
    if isinstance(words, torch.Tensor):
        return path.stem, words
    tensors = {
        str(word): tensor
        for word, tensor in (words.items() if isinstance(words, Mapping) else ())
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }
    if len(tensors) != 1:
        found = f"{len(tensors)} tensors of numbers ({', '.join(list(tensors)[:3])})" if tensors else "no tensors"
        wanted = "the vectors of one word"
        raise UserError(f"--embedding {path}", found, wanted, "take a textual inversion; a LoRA is merged with --lora")
    ((word, tensor),) = tensors.items()
    return (path.stem if is_webui or word == WEBUI_TENSOR else word), tensor


def _check_fits(embedding: Embedding, config: Mapping[str, Any]) -> None:
    count, width = embedding.vectors.shape
    if width != config["hidden_size"]:
        wanted = f"{config['hidden_size']}, the width of the text encoder"
        remedy = "take one that was trained for this base model"
        raise UserError(embedding.where, f"vectors of {width} numbers", wanted, remedy)
    room = config["max_position_embeddings"] - 2  # begin and end
    if count > room:
        raise UserError(embedding.where, f"{count} vectors", f"at most {room}, what a prompt can hold", "take another")


def _check_word(embedding: Embedding, vocabulary: _Vocabulary) -> None:
    word, where = embedding.token, f"{embedding.where}: word"
    remedy = "name another: --embedding FILE=WORD"
    if not word or _SYNTAX.search(word):
        raise UserError(where, repr(word), "a word without brackets and backslashes", remedy)
    if _NOT_UTF8.search(word):
        raise UserError(where, repr(word), "a word in UTF-8", remedy)
    taken = [name for name in (word, f"{word}_1") if vocabulary.has(name)]
    if taken:
        raise UserError(where, f"{taken[0]!r}, which the tokenizer has", "a word that is not taken", remedy)
    base, _, number = word.rpartition("_")
    if number.isdecimal() and base in vocabulary.added:
        raise UserError(where, f"{word!r}, which would be a vector of {base!r}", "a word of its own", remedy)


def _with_rows(source: PartSource, rows: Mapping[int, torch.Tensor]) -> PartSource:
    """Return the text encoder with these rows in its table, which grows if it ends before them."""
    count = max(source.config["vocab_size"], max(rows) + 1)

    def read() -> dict[str, torch.Tensor]:
        weights = source.read()
        table = weights[TABLE]
        grown = torch.zeros(max(count, len(table)), table.shape[1], dtype=torch.float32)
        grown[: len(table)] = table
        for token_id, vector in rows.items():
            grown[token_id] = vector
        return {**weights, TABLE: grown}

    return dataclasses.replace(source, config={**source.config, "vocab_size": count}, read=read)

"""Textual inversions: contexts are diffusers' own, and files that do not fit are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from safetensors.torch import save_file
from torch import nn

from mlc_controlnet.capture.text_encoder import TextEncoder
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.checkpoint.embeddings import read_embedding
from mlc_controlnet.checkpoint.source import TokenizerSource
from mlc_controlnet.config import EmbeddingOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.export.description import describe_tokenizer
from mlc_controlnet.runtime.prompts import tokenize_prompt
from mlc_controlnet.runtime.tokenizer import PromptTokenizer

WIDTH = 64  # D of circles
VECTORS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(3))
PROMPT = "gold <Cat-Toy> circle, easynegative and navy"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """diffusers' form with one vector and with three, sd-webui's with two."""
    folder = tmp_path_factory.mktemp("inversions")
    save_file({"<cat-toy>": VECTORS[0]}, folder / "one.safetensors")
    torch.save({"<cat-toy>": VECTORS}, folder / "three.bin")
    parameters = {"*": nn.Parameter(VECTORS[:2])}
    webui = {"string_to_token": {"*": 265}, "string_to_param": parameters, "name": "old name", "step": 500}
    torch.save(webui, folder / "EasyNegative.pt")
    return folder


def load(model: Path, *options: EmbeddingOption) -> Checkpoint:
    return load_checkpoint(model, components=["text_encoder"], embeddings=options)


def token_ids(checkpoint: Checkpoint, prompt: str) -> torch.Tensor:
    source = TokenizerSource(checkpoint.tokenizer_json, checkpoint.special_tokens)
    tokenizer = PromptTokenizer(source.json, describe_tokenizer(checkpoint, source, "tokenizer.json"))
    (chunk,) = tokenize_prompt(prompt, tokenizer, 1).chunks
    return torch.from_numpy(chunk.token_ids)


@pytest.mark.parametrize(("file", "count"), [("one.safetensors", 1), ("three.bin", 3)])
def test_the_context_of_a_prompt_with_textual_inversions_is_diffusers_own(
    random_model: Path, files: Path, file: str, count: int
) -> None:
    checkpoint = load(random_model, EmbeddingOption(str(files / file)), EmbeddingOption(str(files / "EasyNegative.pt")))
    text_encoder = checkpoint.parts["text_encoder"].float()
    with torch.no_grad():
        context = TextEncoder(text_encoder)(token_ids(checkpoint, PROMPT), torch.ones(checkpoint.shape.text_layers))

    pipeline = StableDiffusionControlNetPipeline.from_pretrained(random_model, torch_dtype=torch.float32)
    embedding = {"<cat-toy>": VECTORS[:count].half().float()}  # as a bundle stores it
    pipeline.load_textual_inversion(embedding)
    pipeline.load_textual_inversion(VECTORS[:2].half().float(), token="easynegative")
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(PROMPT.lower(), torch.device("cpu"), 1, False)
    assert pipeline.maybe_convert_prompt("<cat-toy>", pipeline.tokenizer).count("<cat-toy>") == count
    torch.testing.assert_close(context, expected, rtol=1e-4, atol=1e-4)


def test_a_word_stands_for_all_its_vectors_and_is_found_as_a_word(random_model: Path, files: Path) -> None:
    checkpoint = load(random_model, EmbeddingOption(str(files / "EasyNegative.pt")))
    first = checkpoint.parts["text_encoder"].config.vocab_size - 2
    assert token_ids(checkpoint, "(EASYNEGATIVE:1.2)")[0, 1:4].tolist() == [
        first,
        first + 1,
        token_ids(checkpoint, "")[0, 1],
    ]
    assert first not in token_ids(checkpoint, "uneasynegative easynegatives")
    table = checkpoint.tensors()["text_encoder.embeddings.token_embedding.weight"]
    torch.testing.assert_close(table[first:].detach(), VECTORS[:2].half())


def test_words_do_not_change_what_else_is_tokenized(random_model: Path, files: Path) -> None:
    merged, plain = load(random_model, EmbeddingOption(str(files / "three.bin"), "toy")), load(random_model)
    prompt = "gold circle, toys and navy <cat"
    assert torch.equal(token_ids(merged, prompt), token_ids(plain, prompt))
    assert json.loads(merged.tokenizer_json)["added_tokens"][-1]["content"] == "toy_2"


def save(folder: Path, name: str, content: Any) -> str:
    (save_file if name.endswith(".safetensors") else torch.save)(content, folder / name)
    return str(folder / name)


OTHER_FORMS = {
    "style.safetensors": {"emb_params": VECTORS},
    "tensor.pt": VECTORS,
    "of 2022.pt": {"string_to_param": nn.ParameterDict({"*": nn.Parameter(VECTORS)}), "name": "x"},
    "<word>.bin": {"<word>": VECTORS},
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_every_form_of_file_is_read(tmp_path: Path, name: str) -> None:
    embedding = read_embedding(EmbeddingOption(save(tmp_path, name, OTHER_FORMS[name])))
    assert embedding.token == Path(name).stem
    torch.testing.assert_close(embedding.vectors, VECTORS)


REFUSED = {
    "missing": (None, "x.pt", None, "'.*x.pt', which does not exist, wanted a file"),
    "suffix": (None, "x.txt", None, r"x.txt: got a .txt file, wanted one of .safetensors"),
    "width": ({"x": torch.ones(2, 768)}, "x.pt", None, "vectors of 768 numbers, wanted 64, the width of the text enc"),
    "no tensors": ({"x": 1}, "x.pt", None, "got no tensors, wanted the vectors of one word"),
    "a lora": (
        {"a.up": VECTORS, "a.down": VECTORS},
        "x.pt",
        None,
        r"got 2 tensors of numbers \(a.up, a.down\), wanted",
    ),
    "sdxl": ({"clip_l": VECTORS, "clip_g": VECTORS}, "x.pt", None, "got a textual inversion of SDXL, wanted one for"),
    "rank": ({"x": torch.ones(1, 2, 64)}, "x.pt", None, r"got a tensor \[1, 2, 64\], wanted vectors \[N, D\]"),
    "nan": ({"x": VECTORS * torch.nan}, "x.pt", None, "got NaN or infinity, wanted finite numbers"),
    "too many": ({"x": torch.ones(76, 64)}, "x.pt", None, "got 76 vectors, wanted at most 75, what a prompt can hold"),
    "a word of CLIP's": (
        VECTORS,
        "x.pt",
        "Gold",
        "word: got 'Gold', which the tokenizer has, wanted a word that is not",
    ),
    "brackets": (
        VECTORS,
        "x.pt",
        "a(b",
        r"word: got 'a\(b', wanted a word without brackets and backslashes; name anoth",
    ),
    "bytes that are not UTF-8": (VECTORS, "x.pt", "caf\udce9", r"word: got 'caf\\udce9', wanted a word in UTF-8"),
    "no word": (VECTORS, "x.pt", " ", "word: got '', wanted a word without"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_does_not_fit_is_refused_by_name(random_model: Path, tmp_path: Path, case: str) -> None:
    content, name, token, message = REFUSED[case]
    if content is not None:
        save(tmp_path, name, content)
    elif case == "suffix":
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        load(random_model, EmbeddingOption(str(tmp_path / name), token))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("toy", "toy"), "word: got 'toy', which the tokenizer has"),
        (("toy", "TOY"), "word: got 'TOY', which the tokenizer has"),
        (("toy_1", "toy"), "word: got 'toy_1', which the tokenizer has"),
        (("toy", "toy_3"), "word: got 'toy_3', which would be a vector of 'toy', wanted a word of its own"),
    ],
)
def test_two_textual_inversions_need_two_words(
    random_model: Path, files: Path, words: tuple[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(random_model, *(EmbeddingOption(str(files / "three.bin"), word) for word in words))


def test_a_pickle_that_would_run_code_is_refused(random_model: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    torch.save({"string_to_param": Harmful()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"a pickle that asks for more than tensors \(.*print\)"):
        load(random_model, EmbeddingOption(str(tmp_path / "x.pt")))


def test_a_folder_as_diffusers_saves_it_is_found(tmp_path: Path) -> None:
    torch.save({"<cat>": VECTORS}, tmp_path / "learned_embeds.bin")
    assert read_embedding(EmbeddingOption(str(tmp_path))).token == "<cat>"
    with pytest.raises(UserError, match=r"--embedding: got '.*nothing', which does not exist"):
        read_embedding(EmbeddingOption(str(tmp_path / "nothing")))


def test_an_option_is_a_file_and_a_word(tmp_path: Path) -> None:
    assert EmbeddingOption.parse("a.pt") == EmbeddingOption("a.pt")
    assert EmbeddingOption.parse("a.pt=<b>") == EmbeddingOption("a.pt", "<b>")
    (tmp_path / "a=b.pt").touch()
    assert EmbeddingOption.parse(str(tmp_path / "a=b.pt")).token is None

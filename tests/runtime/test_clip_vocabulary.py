"""CLIP's real vocabulary, from open_clip_torch's data: both tokenizers of ours against transformers' own."""

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from mlc_controlnet.bundle.manifest import TokenizerSpec
from mlc_controlnet.checkpoint.source import TokenizerSource
from mlc_controlnet.checkpoint.tokenizer import find_clip_tokenizer, read_tokenizer_folder
from mlc_controlnet.runtime.prompt_syntax import PLAIN
from mlc_controlnet.runtime.prompts import tokenize_prompt
from mlc_controlnet.runtime.tokenizer import PromptTokenizer
from tests.runtime.clip_prompts import PROMPTS

ROOT = Path(__file__).parent.parent.parent
TOKENS = 77
BEGIN_ID, END_ID = 49406, 49407


@pytest.fixture(scope="module")
def clip() -> TokenizerSource:
    return find_clip_tokenizer("<|endoftext|>", None)


@pytest.fixture(scope="module")
def vocabulary_folder(clip: TokenizerSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Stable Diffusion's repositories have it: vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("clip")
    model = json.loads(clip.json)["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    return folder


@pytest.fixture(scope="module")
def reference(vocabulary_folder: Path) -> list[list[int]]:
    tokenizer = CLIPTokenizer.from_pretrained(vocabulary_folder)
    encoded = tokenizer(list(PROMPTS), padding="max_length", max_length=TOKENS, truncation=True)
    return encoded.input_ids


def spec(pad_id: int = END_ID) -> TokenizerSpec:
    return TokenizerSpec("tokenizer.json", TOKENS, BEGIN_ID, END_ID, pad_id)


def plain_ids(tokenizer: PromptTokenizer, prompt: str) -> list[int]:
    (chunk,) = tokenize_prompt(prompt, tokenizer, 1, PLAIN).chunks
    return chunk.token_ids[0].tolist()


def differences(got: list[list[int]], wanted: list[list[int]]) -> dict[str, tuple[list[int], list[int]]]:
    return {prompt: (g, w) for prompt, g, w in zip(PROMPTS, got, wanted, strict=True) if g != w}


def test_there_are_two_hundred_different_prompts() -> None:
    assert len(set(PROMPTS)) == len(PROMPTS) >= 200


def test_the_ids_are_those_that_clip_was_trained_with(clip: TokenizerSource) -> None:
    """Of OpenAI's README: "a diagram", "a dog", "a cat"."""
    ids = plain_ids(PromptTokenizer(clip.json, spec()), "a diagram a dog a cat")
    assert ids[:8] == [BEGIN_ID, 320, 22697, 320, 1929, 320, 2368, END_ID]


def test_native_ids_are_the_references(clip: TokenizerSource, reference: list[list[int]]) -> None:
    tokenizer = PromptTokenizer(clip.json, spec())
    got = [plain_ids(tokenizer, prompt) for prompt in PROMPTS]
    assert differences(got, reference) == {}


def test_browser_ids_are_the_references(clip: TokenizerSource, reference: list[list[int]], tmp_path: Path) -> None:
    assert differences(browser_ids(clip.json.decode(), PROMPTS, tmp_path), reference) == {}


def browser_ids(tokenizer_json: str, prompts: Sequence[str], folder: Path) -> list[list[int]]:
    node = shutil.which("node")
    assert node is not None, "node runs the browser's code"
    cases = {"tokenizer": tokenizer_json, "spec": dataclasses.asdict(spec()), "prompts": prompts}
    (folder / "cases.json").write_text(json.dumps(cases))
    script = Path(__file__).with_name("tokenize.mjs")
    ran = subprocess.run(
        [node, script, ROOT / "web", folder / "cases.json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


ADDED = [
    "<cat-toy>",
    "a <cat-toy>, red",
    "a<cat-toy>b",
    "<CAT-TOY>",
    "<cat-toy><cat-toy>.",
    "<cat toy>",
    "é<cat-toy>É 1",
]


def test_an_added_word_is_found_where_transformers_finds_it(vocabulary_folder: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(vocabulary_folder)
    tokenizer.add_tokens("<cat-toy>")
    wanted = tokenizer(ADDED, padding="max_length", max_length=TOKENS, truncation=True).input_ids
    json_text = tokenizer.backend_tokenizer.to_str()
    ours = PromptTokenizer(json_text.encode(), spec())
    assert [plain_ids(ours, prompt) for prompt in ADDED] == wanted
    assert browser_ids(json_text, ADDED, tmp_path) == wanted


def test_vocabulary_and_merges_give_the_same_file_as_clips_own(clip: TokenizerSource, vocabulary_folder: Path) -> None:
    assert json.loads(read_tokenizer_folder(vocabulary_folder).json) == json.loads(clip.json)


def test_stable_diffusion_2_pads_with_the_first_token(clip: TokenizerSource) -> None:
    assert json.loads(clip.json)["model"]["vocab"]["!"] == 0
    ids = plain_ids(PromptTokenizer(clip.json, spec(pad_id=0)), "a")
    assert ids == [BEGIN_ID, 320, END_ID] + [0] * 74

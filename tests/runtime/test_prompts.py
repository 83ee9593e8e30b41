import json
import random
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.bundle.manifest import TokenizerSpec
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.prompts import (
    COMMA_BACKTRACK,
    apply_weights,
    pad_chunks,
    tokenize_prompt,
)
from mlc_controlnet.runtime.tokenizer import PromptTokenizer
from tests.fixtures import write_prompts

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "prompts.json").read_text(encoding="utf-8"))


def tokenizer(max_length: int) -> PromptTokenizer:
    spec = TokenizerSpec("", max_length, CASES["begin_id"], CASES["end_id"], CASES["pad_id"])
    return PromptTokenizer(json.dumps(CASES["tokenizer"]).encode(), spec)


@pytest.mark.parametrize("case", CASES["tokenized"], ids=lambda case: f"{case['prompt']} {case['syntax']}")
def test_a_prompt_has_sd_webuis_chunks(case):
    prompt = tokenize_prompt(case["prompt"], tokenizer(case["max_length"]), case["max_chunks"], case["syntax"])
    assert [chunk.token_ids.tolist() for chunk in prompt.chunks] == [[ids] for ids in case["token_ids"]]
    np.testing.assert_array_equal([chunk.weights for chunk in prompt.chunks], np.float32(case["weights"]))
    assert prompt.cut_text == case["cut_text"]
    assert all(chunk.token_ids.dtype == np.int32 for chunk in prompt.chunks)


def test_random_prompts_have_sd_webuis_chunks():
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    words = ["a", "bc", ",", "d,", "BREAK", "(e:1.5)", "[f g]", "<cat>", "sks", "(sks h)", ", ,"]
    for _ in range(200):
        text = " ".join(draw.choices(words, k=draw.randrange(120)))
        tokens = draw.randrange(COMMA_BACKTRACK + 4, 40)
        wanted = write_prompts.tokenized(text, "webui", tokens, 100, "")
        prompt = tokenize_prompt(text, tokenizer(tokens), 100)
        got = [chunk.token_ids[0].tolist() for chunk in prompt.chunks]
        assert (got, prompt.cut_text) == (wanted["token_ids"], ""), f"seed {seed}, {tokens} tokens: {text}"


def test_the_fixture_is_what_its_command_writes():
    wanted = [write_prompts.tokenized(*case) for case in write_prompts.TOKENIZED]
    assert CASES["tokenized"] == wanted
    assert CASES["tokenizer"] == json.loads(json.dumps(write_prompts.tokenizer()))
    assert {case["prompt"] for case in CASES["parsed"]} == set(write_prompts.PARSED)


def test_prompts_are_padded_to_the_longest_with_empty_chunks():
    letters = tokenizer(5)
    prompts = [tokenize_prompt(text, letters, 4) for text in ("a b c d e f g", "(h:2)")]
    long, short = pad_chunks(prompts, letters)
    assert long == prompts[0]
    assert [chunk.token_ids.tolist() for chunk in short.chunks] == [[[30, 8, 31, 0, 0]], *[[[30, 31, 0, 0, 0]]] * 2]
    assert [chunk.is_weighted for chunk in short.chunks] == [True, False, False]


def test_a_chunk_without_weights_says_so():
    (chunk,) = tokenize_prompt("a (b:1) c", tokenizer(9), 1).chunks
    assert not chunk.is_weighted


def test_weights_multiply_rows_and_the_mean_is_restored():
    """sd-webui's EmphasisOriginal, in torch as it is published: multiply, then scale to the mean before."""
    torch = pytest.importorskip("torch")
    context = np.random.default_rng(0).normal(-0.1, 1, (9, 16)).astype(np.float32)
    weights = np.array([1, 1.1, 1.1, 0.5, -0.3, 1, 0, 2, 1], np.float32)
    z = torch.from_numpy(context)
    weighted = z * torch.from_numpy(weights).reshape(-1, 1).expand(z.shape)
    expected = weighted * (z.mean() / weighted.mean())
    got = apply_weights(context, weights)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), rtol=2e-5)
    np.testing.assert_allclose(got.mean(dtype=np.float64), context.mean(dtype=np.float64), rtol=1e-5)


def test_weights_of_one_change_nothing():
    context = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float16)
    np.testing.assert_array_equal(apply_weights(context, np.ones(5, np.float32)), context.astype(np.float32))


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [1, -1 + 1e-7]])
def test_weights_that_cancel_out_are_refused(weights):
    with pytest.raises(UserError, match="negative prompt: got weights that cancel out, wanted"):
        apply_weights(np.ones((2, 3), np.float32), np.array(weights, np.float32), "negative prompt")

import json

import pytest

from mlc_controlnet.runtime.tokenizer import PromptTokenizer
from tests.fixtures.linear_bundle import TOKENS


@pytest.fixture(scope="module")
def spec(linear_bundle):
    return linear_bundle.manifest.tokenizer


@pytest.fixture(scope="module")
def tokenizer(linear_bundle, spec):
    """It has one token a letter."""
    return PromptTokenizer(linear_bundle.read_file(spec.file), spec)


def with_words(linear_bundle, spec, *words):
    config = json.loads(linear_bundle.read_file(spec.file))
    flags = {"lstrip": False, "rstrip": False, "normalized": True, "special": False}
    config["added_tokens"] = [
        {"id": 300 + i, "content": word, "single_word": word.isalnum(), **flags} for i, word in enumerate(words)
    ]
    return PromptTokenizer(json.dumps(config).encode(), spec)


def test_every_letter_is_a_token_in_lower_case(tokenizer):
    assert tokenizer.tokens("aB") == [(ord("a") - ord("!"),), (ord("b") - ord("!"),)]
    assert tokenizer.tokens("") == []
    assert tokenizer.comma == (ord(",") - ord("!"),)
    assert tokenizer.room == TOKENS - 2


def test_a_prompt_is_not_cut_here(tokenizer):
    assert len(tokenizer.tokens("a" * 3 * TOKENS)) == 3 * TOKENS


@pytest.mark.parametrize(
    ("count", "words"), [(0, "ab  Cd e"), (1, "ab  Cd e"), (2, "Cd e"), (3, "Cd e"), (4, "e"), (5, "")]
)
def test_words_that_are_not_whole_among_the_first_ids_come_after(tokenizer, count, words):
    assert tokenizer.words_after("ab  Cd e", count) == words


def test_an_added_word_is_found_whole_whatever_its_case(linear_bundle, spec):
    tokenizer = with_words(linear_bundle, spec, "cat", "<toy>")
    assert tokenizer.tokens("CAT") == [(300,)]
    assert (300,) not in tokenizer.tokens("concatenate cats cat_")
    assert tokenizer.tokens("a<Toy>")[1:] == [(301,)]


def test_the_longest_added_word_is_found_first_and_has_all_its_vectors(linear_bundle, spec):
    tokenizer = with_words(linear_bundle, spec, "<toy>", "<toy>_1", "<toy>_2", "<toy> car")
    assert tokenizer.tokens("<toy>") == [(300, 301, 302)]
    assert tokenizer.tokens("<toy> car") == [(303,)]
    assert tokenizer.tokens("<toy>_1") == [(301,)]


def test_characters_of_a_word_are_no_pattern(linear_bundle, spec):
    tokenizer = with_words(linear_bundle, spec, "a.b+")
    assert tokenizer.tokens("a.b+") == [(300,)]
    assert len(tokenizer.tokens("axbb")) == 4

import pytest

from mlc_controlnet.runtime.tokenizer import PromptTokenizer
from tests.fixtures.linear_bundle import BEGIN_ID, END_ID, TOKENS


@pytest.fixture(scope="module")
def tokenizer(linear_bundle):
    spec = linear_bundle.manifest.tokenizer
    return PromptTokenizer(linear_bundle.read_file(spec.file), spec)


def test_a_prompt_stands_between_begin_and_end_and_is_padded(tokenizer):
    ids = tokenizer.encode("ab").token_ids
    assert (ids.shape, ids.dtype) == ((1, TOKENS), "int32")
    assert ids[0, 0] == BEGIN_ID
    assert (ids[0, 3:] == END_ID).all()
    assert not {BEGIN_ID, END_ID} & set(ids[0, 1:3].tolist())


def test_an_empty_prompt_is_begin_end_and_padding(tokenizer):
    assert tokenizer.encode("").token_ids.tolist() == [[BEGIN_ID] + [END_ID] * (TOKENS - 1)]


def test_a_prompt_that_just_fits_is_not_cut(tokenizer):
    tokenized = tokenizer.encode("a" * (TOKENS - 2))
    assert tokenized.cut_text == ""
    assert tokenized.token_ids[0, -1] == END_ID


def test_the_words_that_were_cut_are_reported_as_the_user_wrote_them(tokenizer):
    tokenized = tokenizer.encode("x" * (TOKENS - 6) + " Navy Ground")
    assert tokenized.cut_text == "Navy Ground"
    assert tokenized.token_ids.shape == (1, TOKENS)
    assert tokenized.token_ids[0, -1] == END_ID

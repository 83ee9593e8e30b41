"""Where a model's tokenizer comes from."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from tokenizers import Tokenizer

from mlc_controlnet.checkpoint import find_model, load_checkpoint, tokenizer
from mlc_controlnet.checkpoint.tokenizer import find_clip_tokenizer, read_tokenizer_folder
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import write_vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vocabulary(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_vocabulary_and_merges_become_one_file(folder: Path) -> None:
    source = read_tokenizer_folder(folder)
    encoded = Tokenizer.from_str(source.json.decode()).encode("Red a", add_special_tokens=False)
    assert encoded.tokens == ["red</w>", "a</w>"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_an_editor_on_windows_are_read_as_the_others(folder: Path, line_end: str) -> None:
    """With a byte order mark, and with lines that end in two characters."""
    plain = read_tokenizer_folder(folder).json
    for name in ("vocab.json", "merges.txt"):
        text = (folder / name).read_text(encoding="utf-8").replace("\n", line_end)
        (folder / name).write_bytes(text.encode("utf-8-sig"))
    assert read_tokenizer_folder(folder).json == plain
    (folder / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + plain)
    assert read_tokenizer_folder(folder).json == plain


@pytest.mark.parametrize("layout", ["added_tokens.json", "tokenizer_config.json"])
def test_words_that_somebody_taught_the_model_are_one_token(folder: Path, layout: str) -> None:
    size = len(json.loads((folder / "vocab.json").read_text()))
    if layout == "added_tokens.json":
        (folder / layout).write_text(json.dumps({"<cat-toy>": size, "<dog-toy>": size + 1}))
    else:
        flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False) | {"normalized": True}
        tokens = {str(size): {"content": "<cat-toy>", **flags}, str(size + 1): {"content": "<dog-toy>", **flags}}
        (folder / layout).write_text(json.dumps({"added_tokens_decoder": tokens}))
    tokenizer = Tokenizer.from_str(read_tokenizer_folder(folder).json.decode())
    encoded = tokenizer.encode("red <cat-toy> <dog-toy>", add_special_tokens=False)
    assert encoded.tokens == ["red</w>", "<cat-toy>", "<dog-toy>"]
    assert encoded.ids[1:] == [size, size + 1]


def test_an_added_token_beside_a_ready_file_is_added(tmp_path: Path) -> None:
    ready = (find_model("circles") / "tokenizer" / "tokenizer.json").read_bytes()
    size = Tokenizer.from_str(ready.decode()).get_vocab_size(with_added_tokens=True)
    (tmp_path / "tokenizer.json").write_bytes(ready)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<cat-toy>": size}))
    tokenizer = Tokenizer.from_str(read_tokenizer_folder(tmp_path).json.decode())
    assert tokenizer.encode("a <cat-toy>", add_special_tokens=False).ids[1] == size


def test_an_added_token_with_a_gap_before_it_is_refused(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<cat-toy>": 99999}))
    with pytest.raises(UserError, match="added token '<cat-toy>': got id 99999, wanted 192: ids without a gap"):
        read_tokenizer_folder(folder)


def test_added_tokens_without_ids_are_refused(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<cat-toy>": "x"}))
    with pytest.raises(UserError, match=r"added_tokens\.json: got no added tokens"):
        read_tokenizer_folder(folder)


def test_before_one_file_held_everything_the_special_tokens_map_decided(folder: Path) -> None:
    """Stable Diffusion 2.1 pads with "!" in special_tokens_map.json, and not in tokenizer_config.json."""
    assert read_tokenizer_folder(folder).special_tokens["pad_token"] == "!"


def test_a_newer_configuration_decides_alone(folder: Path) -> None:
    config = {"pad_token": {"content": "<|endoftext|>"}, "added_tokens_decoder": {}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_tokenizer_folder(folder).special_tokens["pad_token"] == "<|endoftext|>"


def test_a_ready_file_is_taken_as_it_is(circles_model: Path) -> None:
    source = read_tokenizer_folder(circles_model / "tokenizer")
    assert source.json == (find_model("circles") / "tokenizer" / "tokenizer.json").read_bytes()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got no tokenizer, wanted tokenizer\.json, or vocab\.json and merges\.txt"):
        read_tokenizer_folder(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"')
    with pytest.raises(UserError, match=r"tokenizer\.json: got no tokenizer"):
        read_tokenizer_folder(tmp_path)


def test_merges_in_another_encoding_are_refused(folder: Path) -> None:
    (folder / "merges.txt").write_bytes("é d".encode("latin-1"))
    with pytest.raises(UserError, match=r"merges\.txt: got no UTF-8"):
        read_tokenizer_folder(folder)


def test_merges_of_another_vocabulary_are_refused(folder: Path) -> None:
    (folder / "merges.txt").write_text("#version: 0.2\nö ä\n")
    with pytest.raises(UserError, match="got no vocabulary"):
        read_tokenizer_folder(folder)


def test_a_single_file_takes_the_tokenizer_that_is_given(folder: Path) -> None:
    source = find_clip_tokenizer("!", folder)
    assert source.json == read_tokenizer_folder(folder).json


def test_without_the_vocabularys_package_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    asked = []

    def download(repo: str, file: str, revision: str | None) -> str:
        asked.append((repo, file))
        (tmp_path / file).write_bytes(read_tokenizer_folder(folder).json)
        return str(tmp_path / file)

    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find_clip_tokenizer("!", None).json == read_tokenizer_folder(folder).json
    assert asked == [("openai/clip-vit-large-patch14", "tokenizer.json")]


def test_without_package_and_hub_the_message_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"pip install --no-deps open_clip_torch, or pass --tokenizer"):
        find_clip_tokenizer("!", None)


def test_a_tokenizer_with_ids_beyond_the_text_encoders_table_is_refused(random_model: Path, tmp_path: Path) -> None:
    ready = json.loads((find_model("circles") / "tokenizer" / "tokenizer.json").read_text())
    ready["added_tokens"].append({**ready["added_tokens"][0], "id": 99999, "content": "<new>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(ready))
    with pytest.raises(
        UserError, match=r"tokenizer: got ids up to 99999, wanted at most \d+, the text encoder's last row"
    ):
        load_checkpoint(random_model, tokenizer=tmp_path)

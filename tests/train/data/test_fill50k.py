import json
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.data import fill50k
from tests.images import image_files


def example(seed: int, prompt: str) -> fill50k.Example:
    rng = np.random.default_rng(seed)
    return fill50k.Example(
        source=rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        target=rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        prompt=prompt,
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    examples = [example(0, "gold circle with navy background"), example(1, 'a "quoted" prömpt')]
    assert fill50k.write(tmp_path, examples) == 2
    for wrote, read in zip(examples, fill50k.read(tmp_path), strict=True):
        assert read.prompt == wrote.prompt
        np.testing.assert_array_equal(read.source, wrote.source)
        np.testing.assert_array_equal(read.target, wrote.target)


def test_the_index_names_files_as_fill50k_does(tmp_path: Path) -> None:
    fill50k.write(tmp_path, [example(0, "p")])
    row = json.loads((tmp_path / "prompt.json").read_text())
    assert row == {"source": "source/0.png", "target": "target/0.png", "prompt": "p"}


def test_an_interrupted_write_leaves_no_index(tmp_path: Path) -> None:
    def examples():
        yield example(0, "p")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill50k.write(tmp_path, examples())
    assert not (tmp_path / "prompt.json").exists()


def test_a_line_without_a_prompt_is_named(tmp_path: Path) -> None:
    fill50k.write(tmp_path, [example(0, "p"), example(1, "q")])
    lines = (tmp_path / "prompt.json").read_text().splitlines()
    lines[1] = json.dumps({"source": "source/1.png", "target": "target/1.png"})
    (tmp_path / "prompt.json").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 2: no prompt"):
        fill50k.read(tmp_path)


ROWS = [fill50k.Row("source/0.png", "target/0.png", "p"), fill50k.Row("source/1.png", "target/1.png", "q\u2028\x85r")]


def index_of(
    rows: list[fill50k.Row], folder: Path, encoding: str = "utf-8", array: bool = False, slash: str = "/"
) -> Path:
    """Write `rows` as prompt.json, without escapes for letters that are not ASCII."""
    fields = [{"source": row.source, "target": row.target, "prompt": row.prompt} for row in rows]
    fields = [
        {**f, "source": f["source"].replace("/", slash), "target": f["target"].replace("/", slash)} for f in fields
    ]
    lines = [json.dumps(f, ensure_ascii=False) for f in fields]
    text = json.dumps(fields, ensure_ascii=False, indent=2) if array else "\n".join(lines)
    (folder / "prompt.json").write_bytes(text.encode(encoding))
    return folder


@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_an_index_is_read_however_it_was_written(tmp_path: Path, array: bool, encoding: str, slash: str) -> None:
    """With a byte order mark, as one array, with the paths of Windows, with U+2028 and U+0085 inside of a prompt."""
    assert fill50k.read_rows(index_of(ROWS, tmp_path, encoding, array, slash)) == ROWS


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    text = index_of(ROWS, tmp_path).joinpath("prompt.json").read_bytes()
    (tmp_path / "prompt.json").write_bytes(text.replace(b"\n", b"\r\n") + b"\r\n")
    assert fill50k.read_rows(tmp_path) == ROWS


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-32"), ("latin-1", r"such as Latin-1 \(line 2\)")],
)
def test_an_index_in_another_encoding_is_refused_by_its_name(tmp_path: Path, encoding: str, name: str) -> None:
    rows = [ROWS[0], fill50k.Row("source/1.png", "target/1.png", "grün")]
    with pytest.raises(UserError, match=rf"prompt.json: got a text in .*{name}, wanted UTF-8; save it again as UTF-8$"):
        fill50k.read_rows(index_of(rows, tmp_path, encoding))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "an empty file"),
        ("gold circle\n", r"no JSON object at all \(line 1: not a JSON object \("),
        ('"source/0.png"\n', r"no JSON object at all \(line 1: not a JSON object\)"),
        ("[1, 2]", r"no JSON object at all \(entry 1: not a JSON object\)"),
        ('[{"source": "0.png"}', r"a damaged JSON array \(Expecting"),
    ],
)
def test_an_index_without_an_object_is_refused_with_an_example(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "prompt.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"prompt.json: got {got}"):
        fill50k.read_rows(tmp_path)


def test_an_entry_that_lacks_a_field_says_which_ones_it_has(tmp_path: Path) -> None:
    good = json.dumps({"source": None, "target": "t", "prompt": "p"})
    (tmp_path / "prompt.json").write_text(f'{{"image": "0.png", "text": "a"}}\n{good}', encoding="utf-8")
    wanted = ["line 1: no target and no prompt (its fields are image, text)", fill50k.Row("", "t", "p")]
    assert fill50k.read_rows(tmp_path) == wanted


def test_examples_are_read_upright_and_with_the_grey_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    picture, ramp = image_files.random_rgb(24, 32), image_files.ramp_16_bits(24, 32)
    (tmp_path / "target" / "0.png").write_bytes(image_files.with_orientation(picture.rotate(90, expand=True), "PNG", 6))
    (tmp_path / "source" / "0.png").write_bytes(image_files.encode(ramp, "PNG"))
    (example,) = fill50k.read(index_of(ROWS[:1], tmp_path))
    np.testing.assert_array_equal(example.target, picture)
    np.testing.assert_array_equal(example.source[..., 0], np.rint(np.asarray(ramp) / 257))


def test_a_folder_without_an_index_says_what_a_data_set_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompt\.json"):
        fill50k.read(tmp_path)

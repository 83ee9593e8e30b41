import json
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.data import fill50k


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


def test_a_folder_without_an_index_says_what_a_data_set_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompt\.json"):
        fill50k.read(tmp_path)

"""What a user's name for a model means: a path first, then a bundled model, then a hub id."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlc_controlnet.checkpoint import find_model
from mlc_controlnet.locations import BUNDLED_MODELS
from mlc_controlnet.train.base import find_base

BUNDLED = BUNDLED_MODELS / "circles"
by_both = pytest.mark.parametrize("find", [find_model, find_base], ids=["build", "train"])


@pytest.fixture
def other_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds a model of the bundled model's name."""
    (tmp_path / "circles").mkdir()
    shutil.copy(BUNDLED / "model_index.json", tmp_path / "circles")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "circles"


@by_both
@pytest.mark.parametrize("name", ["./circles", "circles/", "../{parent}/circles"])
def test_a_path_is_never_the_bundled_model(
    other_circles: Path, capsys: pytest.CaptureFixture[str], find: Callable[[str], Path], name: str
) -> None:
    assert find(name.format(parent=other_circles.parent.name)).resolve() == other_circles
    assert capsys.readouterr().err == ""


@by_both
def test_the_bare_word_is_the_folder_with_a_notice(
    other_circles: Path, capsys: pytest.CaptureFixture[str], find: Callable[[str], Path]
) -> None:
    assert find("circles").resolve() == other_circles
    wanted = f"notice: model circles: this is {other_circles}, not the bundled model of the same name\n"
    assert capsys.readouterr().err == wanted


@by_both
def test_a_folder_of_the_same_name_that_is_no_model_does_not_hide_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], find: Callable[[str], Path]
) -> None:
    (tmp_path / "circles").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("circles") == BUNDLED
    assert capsys.readouterr().err == ""

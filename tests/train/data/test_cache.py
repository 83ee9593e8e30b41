"""A cache is used while it is true, and computed again when its set changed."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mlc_controlnet.errors import UserError
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.data import fill50k
from mlc_controlnet.train.data.cache import ConditionCache, open_cache, read_cache
from mlc_controlnet.train.data.rows import RowSet
from mlc_controlnet.train.data.samples import ReadOptions
from tests.images import image_files
from tests.train.conftest import HEIGHT, WIDTH, write_set

OPTIONS = ReadOptions(HEIGHT, WIDTH, 3, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three samples, the second without a control image of its aspect ratio."""
    folder = write_set(tmp_path / "set", 3)
    (folder / "source" / "1.png").write_bytes(image_files.encode(image_files.random_rgb(WIDTH, HEIGHT), "PNG"))
    return folder


def cache_of(folder: Path, weight: float = 1.0) -> tuple[ConditionCache, bool]:
    """The cache of a set whose moments are means of the pictures, and whether it had to be computed."""
    lines: list[str] = []
    part = nn.Linear(1, 1)
    nn.init.constant_(part.weight, weight)
    nn.init.zeros_(part.bias)
    rows = RowSet(folder, fill50k.read_rows(folder), OPTIONS)
    open_cache(
        folder.parent / "cache",
        rows,
        [part],
        lambda pixels: pixels.mean(dim=(2, 3), keepdim=True),
        lambda prompts: torch.tensor([[[float(len(prompt))]] for prompt in prompts]),
        0,
        lines.append,
    )
    return read_cache(folder.parent / "cache"), bool(lines)


def test_a_cache_is_computed_once(folder: Path) -> None:
    first, computed = cache_of(folder)
    assert computed and first.problems.keys() == {1}
    moments, states = first.lookup([0, 2], ["red left", ""])
    assert moments.shape == (2, 3, 1, 1) and states.flatten().tolist() == [8, 0]
    assert not cache_of(folder)[1]


def test_two_runs_that_begin_at_the_same_time_compute_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder, processes = checkpoints.write_folder, []

    def while_another_run_begins(target: Path, write: Callable[[Path], None]) -> Path:
        if not processes:
            processes.append(os.fork())
            if processes == [0]:
                status = 2
                try:
                    status = int(cache_of(folder)[1])
                finally:
                    os._exit(status)
            time.sleep(0.2)  # without a lock, the other one would have removed this one's files by now
        return write_folder(target, write)

    monkeypatch.setattr(checkpoints, "write_folder", while_another_run_begins)
    assert cache_of(folder)[1]
    assert os.waitstatus_to_exitcode(os.waitpid(processes[0], 0)[1]) == 0


def test_a_set_that_moved_keeps_its_cache(folder: Path) -> None:
    cache_of(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert not cache_of(moved)[1]


def test_other_weights_compute_the_cache_again(folder: Path) -> None:
    cache_of(folder)
    assert cache_of(folder, weight=2.0)[1]


def test_another_picture_under_the_same_name_computes_the_cache_again(folder: Path) -> None:
    before, _ = cache_of(folder)
    (folder / "target" / "0.png").write_bytes(image_files.encode(image_files.random_rgb(HEIGHT, WIDTH), "PNG"))
    after, computed = cache_of(folder)
    assert computed and before.moments[0].tolist() != after.moments[0].tolist()


def test_a_control_image_of_another_aspect_ratio_is_noticed_after_the_latents_were_cached(folder: Path) -> None:
    cache_of(folder)
    shutil.copy(folder / "source" / "1.png", folder / "source" / "0.png")
    after, computed = cache_of(folder)
    assert computed and after.problems.keys() == {0, 1}


def test_a_bad_sample_that_was_repaired_computes_the_cache_again(folder: Path) -> None:
    """The run asks the user to repair it; the repair may concern the control image only."""
    assert cache_of(folder)[0].problems
    shutil.copy(folder / "source" / "0.png", folder / "source" / "1.png")
    after, computed = cache_of(folder)
    assert computed and not after.problems


def test_a_folder_that_holds_something_else_is_not_replaced_by_a_cache(folder: Path) -> None:
    """The set itself, for example: it would be deleted."""
    kept = folder.parent / "cache" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(UserError, match=r"data\.cache .*cache: got something that is not a cache"):
        cache_of(folder)
    assert kept.read_text() == "mine"

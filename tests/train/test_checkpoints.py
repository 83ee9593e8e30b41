import os
import signal
from pathlib import Path

import pytest
import torch

from mlc_controlnet.errors import UserError
from mlc_controlnet.train import checkpoints


def write_files(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "a").write_text("a")
    (folder / "b").write_text("b")


def save_in_a_process_that_dies(folder: Path, step: int, limit: int, dies_at: int) -> bool:
    """Save in a forked process that gets SIGKILL just before its `dies_at`-th call to the system that changes the disk.

    Returns whether it died; where there are fewer calls it finishes.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in ("mkdir", "rename", "rmdir", "unlink", "fsync", "open"):
            setattr(os, name, counted(getattr(os, name)))
        checkpoints.save(folder, step, write_files, limit)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def is_whole(checkpoint: Path) -> bool:
    return (checkpoint / "part" / "a").read_text() == "a" and (checkpoint / "b").read_text() == "b"


def test_death_at_any_moment_of_a_save_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, write_files, limit=1)
    deaths = 0
    for dies_at in range(1, 100):
        step = dies_at + 1
        died = save_in_a_process_that_dies(tmp_path, step, 1, dies_at)
        found = list(tmp_path.glob("step-*"))
        assert found and all(is_whole(path) for path in found)
        if not died:
            break
        deaths += 1
    assert deaths > 10
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.name_of(step)]


def test_a_full_disk_is_an_error_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files makes the system refuse a write, as a full disk does."""
    import resource

    from safetensors.torch import save_file

    checkpoints.save(tmp_path, 1, write_files, limit=3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(UserError, match=r"make room.*step-00000001 is intact"):
            checkpoints.save(tmp_path, 2, lambda folder: save_file({"w": torch.zeros(2**16)}, folder / "w"), limit=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_first_save_on_a_full_disk_says_that_there_is_nothing_before(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="no checkpoint before"):
        checkpoints.save(tmp_path, 2, write, limit=3)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_is_the_one_of_the_latest_step(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "nowhere") is None
    for step in (9, 100, 20):
        checkpoints.save(tmp_path, step, write_files, limit=5)
    newest = checkpoints.newest(tmp_path)
    assert newest is not None and newest.name == "step-00000100"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "old").touch()
    checkpoints.write_folder(tmp_path / "result", write_files)
    assert is_whole(tmp_path / "result") and not (tmp_path / "result" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_an_earlier_runs_checkpoints_are_set_aside_and_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert checkpoints.set_aside(folder) is None
    for name in ("checkpoints-1", "checkpoints-2"):
        checkpoints.save(folder, 5, write_files, limit=1)
        assert checkpoints.set_aside(folder) == tmp_path / name
        assert is_whole(tmp_path / name / "step-00000005") and not folder.exists()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_an_optimizer_goes_on_as_if_never_stopped(order: torch.memory_format, tmp_path: Path) -> None:
    """The fused kernel pairs a weight and its state by their place in memory, so the order matters to it."""

    def make() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.linspace(0, 1, 24).view(1, 2, 3, 4).to(memory_format=order))
        return weight, torch.optim.AdamW([weight], lr=0.1, fused=True)

    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (weight - 2.0).square().sum().backward()
            optimizer.step()

    whole, optimizer = make()
    steps(whole, optimizer, 6)
    half, first = make()
    steps(half, first, 3)
    checkpoints.write_optimizer(tmp_path, first)
    second = torch.optim.AdamW([half], lr=0.1, fused=True)
    checkpoints.read_optimizer(tmp_path, second)
    steps(half, second, 3)
    assert torch.equal(whole, half)

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.cli.interrupt import INTERRUPTED
from mlc_controlnet.cli.main import main
from mlc_controlnet.train.circles import recipe as circles
from mlc_controlnet.train.circles.loop import Stopped
from tests.train.conftest import freed_memory_goes_back, tiny_base, tiny_set, tiny_tree, write_config

__all__ = ["freed_memory_goes_back", "tiny_base", "tiny_set"]  # fixtures of the tests of training, used here too


def test_a_run_from_a_yaml_file_with_changes_and_its_own_output(
    tiny_base: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", tiny_tree(tiny_base, tiny_set, out=str(tmp_path / "unused")))
    arguments = ["train", "--config", str(config), "--set", "trainer.max_steps=2", "--output", str(tmp_path / "it's")]
    assert main(arguments) == 0
    assert "step 2/2, loss" in capsys.readouterr().out
    assert (tmp_path / "it's" / "controlnet" / "config.json").is_file()
    assert "max_steps: 2" in (tmp_path / "it's" / "config.yaml").read_text()
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "--config: got nothing"),
        (["train", "--config", "nowhere"], "circles, fill50k-sd15, fill50k-sd21, webdataset-sd15"),
        (["train", "--config", "circles", "--set", "trainer.maxsteps=1"], "did you mean trainer.max_steps?"),
        (["train", "--config", "fill50k-sd15"], "prompt.json"),
        (["train", "convert", "nowhere", "--output", "x"], "nowhere/prompt.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "circles", "--set", "trainer.max_steps=-3"],
            "error: trainer.max_steps: got -3, wanted 1 or more",
        ),
        (["--config", "nowhere"], "error: --config: got 'nowhere'"),
        (["doodle", "--out", "nowhere", "--judge"], "error: nowhere/doodle: got no model"),
    ],
)
def test_a_mistake_is_told_before_torch_starts_for_seconds(arguments: list[str], message: str) -> None:
    program = "import sys; sys.modules['torch'] = None; from mlc_controlnet.cli.main import main; sys.exit(main({}))"
    command = [sys.executable, "-c", program.format(["train", *arguments])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(message)


def test_presets_and_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "presets"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["train", "options"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["model.sd_locked", "true"] for line in lines)
    assert any(line.split()[:2] == ["optim.learning_rate", "1e-05"] for line in lines)


def test_a_set_is_converted(tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "convert", str(tiny_set), "--output", str(tmp_path / "s"), "--shard-samples", "6"]) == 0
    assert "10 samples in 2 shards, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 0)])
def test_a_recipe_that_is_interrupted_saves_its_step_and_says_so(
    number: int, code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(out: Path, plan: Any, log: Callable[[str], None], asked_to_stop: threading.Event) -> None:
        os.kill(os.getpid(), number)
        assert asked_to_stop.wait(5)
        raise Stopped("stopped after step 2; the same command goes on from there")

    monkeypatch.setattr(circles, "write_data", lambda *_: [])
    monkeypatch.setattr(circles, "train_circles", train)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    try:
        assert main(["train", "circles", "--out", str(tmp_path / "run")]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    said, told = capfd.readouterr()
    assert said == "starting torch and diffusers ...\nstopped after step 2; the same command goes on from there\n"
    asked = "\nCtrl-C: what is being computed is finished and saved; Ctrl-C again ends at once\ninterrupted\n"
    assert told == (asked if code else "")

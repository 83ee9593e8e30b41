"""What a machine lacks is told in one line."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import explain

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [
        ["build.py", "--target", "llvm"],
        ["-m", "mlc_controlnet", "generate", "--prompt", "gold", "--control-image", "ring.png"],
    ],
    ids=["build", "generate"],
)
def test_outside_its_environment_the_project_says_how_to_enter_it(command: list[str]) -> None:
    without_packages = ["-I", "-S", "-c", "import runpy, sys; sys.path.insert(0, '.'); " + _run(command)]
    run = subprocess.run([sys.executable, *without_packages], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(
        r"error: package \w+: got a Python without it \(.+\), wanted .+; .+ activate it with .+\n", run.stderr
    )


def _run(command: list[str]) -> str:
    if command[0] == "-m":
        return f"sys.argv = {command[1:]}; runpy.run_module({command[1]!r}, run_name='__main__', alter_sys=True)"
    return f"sys.argv = {command}; runpy.run_path({command[0]!r}, run_name='__main__')"


@pytest.mark.parametrize(
    ("name", "reason"), [("file/run", "Not a directory"), ("file", "File exists"), ("loop/run", "Too many levels")]
)
def test_a_place_that_cannot_be_written_to_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    place = tmp_path / name
    assert main(["train", "--config", "circles", "--output", str(place)]) == 2
    message = capsys.readouterr().err
    assert f"error: {place}: got {reason}" in message
    assert "wanted a place that may be used; " in message


def test_what_the_system_refuses_is_the_users_to_put_right() -> None:
    error = explain(PermissionError(errno.EACCES, "Permission denied", "/srv/out"))
    assert (
        str(error)
        == "/srv/out: got Permission denied, wanted a place that may be used; choose another, or its permissions"
    )


def test_a_full_disk_is_told_where_the_system_does_not_say_which() -> None:
    error = explain(OSError(errno.ENOSPC, "No space left on device"))
    assert str(error).startswith("disk: got No space left on device, wanted a disk that takes it; make room")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "our.file"),
        ModuleNotFoundError("No module named 'mlc_controlnet.gone'", name="mlc_controlnet.gone"),
        ModuleNotFoundError("import of sys halted", name="sys"),
    ],
)
def test_failures_of_ours_are_not_blamed_on_the_machine(error: Exception) -> None:
    assert explain(error) is None

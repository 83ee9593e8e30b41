"""Processes of their own: results and errors come back, an end is explained, nothing runs between calls."""

import atexit
import os
import sys
import time
from pathlib import Path

import pytest

from mlc_controlnet.bench import own_process
from mlc_controlnet.bench.own_process import OwnProcess, ProcessFailed
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.machine import peak_memory_bytes


def test_a_process_keeps_what_it_made_and_has_a_peak_memory_of_its_own() -> None:
    held = bytearray(200 << 20)  # at its start rusage has what is held here
    held[::4096] = b"x" * len(held[::4096])
    with OwnProcess("counting", needs_torch=False) as process:
        assert process.call(os.getpid) == process.call(os.getpid) != os.getpid()
        assert process.call(peak_memory_bytes) < 100 << 20
        with pytest.raises(ProcessFailed, match=r"^counting failed: ModuleNotFoundError"):
            process.call(__import__, "torch")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_stands_still_between_calls_and_is_gone_after_the_block() -> None:
    with OwnProcess("resting") as process:
        stat = Path(f"/proc/{process.call(os.getpid)}/stat")
        until = time.monotonic() + 5
        while (state := stat.read_text().rpartition(") ")[2][0]) != "T" and time.monotonic() < until:
            time.sleep(0.01)
        assert state == "T"
        assert process.call(abs, -1) == 1
    assert not stat.exists()


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (os._exit, 3, "ended with exit code 3"),
        (os.kill, 9, "was ended by SIGKILL, as the system does where memory is short"),
        (os.kill, 11, "was ended by SIGSEGV"),
        (int, "x", "failed: ValueError: invalid literal for int() with base 10: 'x'"),
    ],
)
def test_what_went_wrong_is_one_line_with_the_name(function: object, argument: object, reason: str) -> None:
    with OwnProcess("torch eager") as process:
        arguments = (process.call(os.getpid), argument) if function is os.kill else (argument,)
        with pytest.raises(ProcessFailed) as caught:
            process.call(function, *arguments)
        assert str(caught.value) == f"torch eager {reason}"
        with pytest.raises((ProcessFailed, OSError)):
            process.call(abs, -1)


def test_a_process_may_clean_up_at_its_end_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OwnProcess("tidy") as process:
        process.call(atexit.register, Path.touch, tmp_path / "clean")
    assert (tmp_path / "clean").exists()
    monkeypatch.setattr(own_process, "GRACE_SECONDS", 0.1)
    began = time.monotonic()
    with OwnProcess("slow") as process:
        process.call(atexit.register, time.sleep, 60)
    assert time.monotonic() - began < 30


def test_a_users_mistake_stays_one() -> None:
    with OwnProcess("asking") as process, pytest.raises(UserError, match="choose one of these"):
        process.call(check_one_of, "--model", "a", ("b",))

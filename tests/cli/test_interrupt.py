"""Ctrl-C and SIGTERM in a process of its own: it ends soon, with one line, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlc_controlnet.cli.interrupt import INTERRUPTED, PATIENCE_SECONDS, TERMINATED

# A build within a call that no signal ends, as generating code is: a mutex is locked a second time.
BUILD = """
import ctypes, pathlib, signal, sys, tempfile, threading
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.cli import build
from mlc_controlnet.cli.main import main

def run(options):
    with BundleWriter(options.out) as writer, tempfile.TemporaryDirectory():
        writer.add_bytes("params/00.bin", b"weights")
        mutex, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
        threading.Timer(1, print, ["locked"], {"flush": True}).start()  # by then it waits
        for _ in range(2):
            library.pthread_mutex_lock(mutex)

build.run = run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
sys.exit(main(["build", "--out", sys.argv[1]], owns_process=True))
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, INTERRUPTED, "interrupted\n"), (signal.SIGTERM, TERMINATED, "terminated\n")],
)
def test_a_build_in_a_call_that_does_not_return_ends_soon_and_leaves_the_older_bundle(
    tmp_path: Path, number: int, code: int, line: str
) -> None:
    out, temporary = tmp_path / "bundles" / "tiny", tmp_path / "temporary"
    temporary.mkdir()
    out.mkdir(parents=True)
    command = [sys.executable, "-c", BUILD, str(out)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        assert len(list(out.parent.iterdir())) == 2 and len(list(temporary.iterdir())) == 1
        pressed = time.monotonic()
        process.send_signal(number)
        try:
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
        seconds = time.monotonic() - pressed
    assert (process.returncode, told) == (code, line)
    assert PATIENCE_SECONDS <= seconds < 10  # on a busy machine
    assert list(out.parent.iterdir()) == [out] and list(temporary.iterdir()) == []

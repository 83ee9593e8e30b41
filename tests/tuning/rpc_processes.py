"""Starts a tracker and servers of TVM's RPC on this machine, in processes that can be killed.

TVM's own command starts two Python processes for each, and each imports TVM, which takes seconds. Here one process
imports it, and the others are forks of it. Started as a program, it reads `tracker` and `server PORT KEY` from its
input, answers each with a process and a port, and ends all of them when its input ends.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
LAST_PORT = 32000  # below those that a system gives to who asks for any


@dataclass(frozen=True)
class Process:
    """A tracker or a server."""

    pid: int
    port: int

    def kill(self) -> None:
        """End it and what it has started, as when its machine loses power."""
        os.killpg(self.pid, signal.SIGKILL)


class Starter:
    """The process that starts the others."""

    def __init__(self, talk: subprocess.Popen[str]) -> None:
        self._talk = talk

    def tracker(self) -> Process:
        return self._start("tracker")

    def server(self, tracker: Process, key: str) -> Process:
        return self._start(f"server {tracker.port} {key}")

    def _start(self, words: str) -> Process:
        assert self._talk.stdin is not None and self._talk.stdout is not None
        self._talk.stdin.write(words + "\n")
        self._talk.stdin.flush()
        pid, port = self._talk.stdout.readline().split()
        return Process(int(pid), int(port))


@contextlib.contextmanager
def starter() -> Iterator[Starter]:
    """Start the process; it and its children end with the block."""
    command = [sys.executable, str(Path(__file__))]
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as talk:
        yield Starter(talk)


def _fork(words: list[str]) -> tuple[int, int]:
    """Start a process and wait until it has its port."""
    from tvm.rpc.server import PopenRPCServerState
    from tvm.rpc.tracker import PopenTrackerServerState

    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        return pid, int(os.read(read, 16))
    os.setsid()
    first = random.randrange(20000, LAST_PORT - 1000)  # several tests may be running
    if words[0] == "tracker":
        state = PopenTrackerServerState(HOST, first, LAST_PORT, silent=True)
    else:
        address = (HOST, int(words[1]))
        state = PopenRPCServerState(HOST, first, LAST_PORT, tracker_addr=address, key=words[2], silent=True)
    os.write(write, str(state.port).encode())
    state.thread.join()
    os._exit(1)


def _serve() -> None:
    started = []
    try:
        for line in sys.stdin:
            pid, port = _fork(line.split())
            started.append(pid)
            print(pid, port, flush=True)
    finally:
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    _serve()

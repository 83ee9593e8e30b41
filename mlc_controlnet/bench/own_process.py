"""Runs functions in a process of its own, which stands still between calls.

What is measured side by side shares no memory, no allocator and no threads then: each has its own peak memory, and one
that crashes takes nothing else along.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from mlc_controlnet.errors import UserError, explain

PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
GRACE_SECONDS = 5.0


class ProcessFailed(RuntimeError):
    """What a process was for did not succeed: it raised an error, or it ended.

    Attributes:
        name: of the process.
        reason: what happened, a sentence that has `name` as its subject.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


class OwnProcess:
    """A process that runs one function at a time. The end of a `with` block ends it, as does a call that fails.

    Between calls it is stopped (SIGSTOP). Its threads would spin for a while after a call, and take the time of what is
    measured next. Settings against spinning (onnxruntime's `session.intra_op.allow_spinning`, OpenMP's wait policy)
    forbid it between the operations of one call, too, where it is part of a contestant's speed.

    Args:
        name: for errors.
        needs_torch: False blocks torch, which TVM's ffi imports where it is installed: 200 MB.
    """

    def __init__(self, name: str, needs_torch: bool = True) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, needs_torch, theirs), name=name)
        self._process.start()
        theirs.close()  # so that the end of the process ends `recv`

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`. Function, arguments and result must be picklable.

        Raises:
            UserError: the function raised one, or another error that the user can correct.
            ProcessFailed: it raised any other error, or the process ended.
        """
        try:
            self._signal(signal.SIGCONT)
            self._connection.send((function, arguments))
            succeeded, result = self._connection.recv()
            self._signal(signal.SIGSTOP)
        except (EOFError, ConnectionError):
            self._process.join()
            raise ProcessFailed(self.name, _how_it_ended(self._process.exitcode)) from None
        except BaseException:  # the process may be busy for long
            self._process.kill()
            raise
        if not succeeded:
            self.end()
            raise result
        return result

    def end(self) -> None:
        """End the process. It has GRACE_SECONDS to remove what outlives a killed one, such as semaphores."""
        self._connection.close()
        if self._process.is_alive():
            self._signal(signal.SIGCONT)
            self._process.join(GRACE_SECONDS)
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None, "it has been started"
        os.kill(self._process.pid, number)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    why = ", as the system does where memory is short" if exit_code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-exit_code).name}{why}"


def _serve(name: str, needs_torch: bool, connection: Connection) -> None:
    """Answer calls until the other side is gone. This runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one, which ends it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a stopped process would outlive a killed parent
    if not needs_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, _explained(name, error)
        connection.send(answer)


def _explained(name: str, error: Exception) -> Exception:
    if isinstance(error, UserError):
        return error
    message = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
    failure = explain(error) or ProcessFailed(name, f"failed: {message}")
    failure.add_note("".join(traceback.format_exception(error)))
    return failure

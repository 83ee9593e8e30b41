"""Ctrl-C and SIGTERM: one line and exit code 130 or 143, soon also where a call into TVM or torch takes long."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as shells have them
PATIENCE_SECONDS = 1.0  # in which a command ends by itself, unless it waits for a call


class Interrupt:
    """Whether Ctrl-C was pressed or SIGTERM arrived, and the line that tells it."""

    def __init__(self) -> None:
        self.is_noted = False
        self.exit_code = INTERRUPTED
        self._telling = threading.Lock()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: remember it, and raise KeyboardInterrupt."""
        self.is_noted = True
        self.exit_code = 128 + number
        signal.default_int_handler(number, frame)

    def tell(self) -> None:
        """Print the line. Where another thread ends the process meanwhile, wait for that instead."""
        self._telling.acquire()
        self._print()

    def end_process(self, number: int) -> None:
        """Tell it and end the process, unless the command has told it: then it is about to end."""
        if self._telling.acquire(blocking=False):
            self.exit_code = 128 + number
            try:
                self._print()
                atexit._run_exitfuncs()  # temporary folders and parts of bundles go, as at any other end
            finally:
                os._exit(self.exit_code)

    def _print(self) -> None:
        print("terminated" if self.exit_code == TERMINATED else "interrupted", file=sys.stderr, flush=True)


@contextlib.contextmanager
def noted_interrupt(ends_process: bool) -> Iterator[Interrupt]:
    """Yield what knows whether Ctrl-C was pressed or SIGTERM arrived, which raises KeyboardInterrupt besides.

    TVM makes a RuntimeError without a text of a KeyboardInterrupt that is raised in a pass which it called.

    Args:
        ends_process: whether to end the process if the block goes on for PATIENCE_SECONDS after the signal. Python
            raises KeyboardInterrupt when the main thread's call returns, and generating code for a library, or the
            other thread's work with torch that a build waits for, takes seconds to minutes. Without it SIGTERM is
            left to the command.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield interrupt  # a process in the background ignores Ctrl-C, and goes on to do so
        return
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, before)
        signal.signal(signal.SIGINT, interrupt.note)
        if ends_process:
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, interrupt.note))
            stack.enter_context(_ended_if_late(interrupt))
        yield interrupt


@contextlib.contextmanager
def _ended_if_late(interrupt: Interrupt) -> Iterator[None]:
    """End the process from a thread that Python's signals wake, whatever the main thread does."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    ended = threading.Event()

    def watch() -> None:
        while numbers := os.read(read_end, 1):
            if numbers[0] in (signal.SIGINT, signal.SIGTERM) and not ended.wait(PATIENCE_SECONDS):
                interrupt.end_process(numbers[0])

    watcher = threading.Thread(target=watch, name="Ctrl-C", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(write_end)  # which ends the thread
        watcher.join()
        os.close(read_end)

"""Ctrl-C: one line and exit code 130, soon also where a call into TVM or torch does not return for long."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PATIENCE_SECONDS = 1.0  # in which a command ends by itself, unless it waits for a call


class Interrupt:
    """Whether Ctrl-C was pressed, and the line that tells it."""

    def __init__(self) -> None:
        self.is_noted = False
        self._telling = threading.Lock()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: remember it, and raise KeyboardInterrupt."""
        self.is_noted = True
        signal.default_int_handler(number, frame)

    def tell(self) -> None:
        """Print the line. Where another thread ends the process meanwhile, wait for that instead."""
        self._telling.acquire()
        print("interrupted", file=sys.stderr, flush=True)

    def end_process(self) -> None:
        """Tell it and end the process, unless the command has told it: then it is about to end."""
        if self._telling.acquire(blocking=False):
            try:
                print("interrupted", file=sys.stderr, flush=True)
                atexit._run_exitfuncs()  # temporary folders and parts of bundles go, as at any other end
            finally:
                os._exit(INTERRUPTED)


@contextlib.contextmanager
def noted_interrupt(ends_process: bool) -> Iterator[Interrupt]:
    """Yield what knows whether Ctrl-C was pressed, which raises KeyboardInterrupt besides.

    TVM makes a RuntimeError without a text of a KeyboardInterrupt that is raised in a pass which it called.

    Args:
        ends_process: whether to end the process if the block goes on for PATIENCE_SECONDS after Ctrl-C. Python raises
            KeyboardInterrupt when the main thread's call returns, and generating code for a library, or the other
            thread's work with torch that a build waits for, takes seconds to minutes.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield interrupt  # a process in the background ignores Ctrl-C, and goes on to do so
        return
    signal.signal(signal.SIGINT, interrupt.note)
    try:
        with _ended_if_late(interrupt) if ends_process else contextlib.nullcontext():
            yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _ended_if_late(interrupt: Interrupt) -> Iterator[None]:
    """End the process from a thread that Python's signals wake, whatever the main thread does."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    ended = threading.Event()

    def watch() -> None:
        while numbers := os.read(read_end, 1):
            if numbers[0] == signal.SIGINT and not ended.wait(PATIENCE_SECONDS):
                interrupt.end_process()

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

"""Sets up the process of a run: its device, its precision, its memory and its reaction to SIGTERM and Ctrl-C."""

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import RunOptions
from mlc_controlnet.train.memory import keep_freed_memory

MIXED_PRECISION = {"32": "no", "bf16": "bf16", "fp16": "fp16"}
FROZEN_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Processes wait for the first one while it fills a cache. By default torch stops waiting for GPUs after ten minutes. If
# a process dies, torchrun ends the others at once.
LONGEST_WAIT = timedelta(hours=12)


def set_up_process(options: RunOptions) -> Accelerator:
    """Set the precision of matrix products and the use of freed memory, and choose the device."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.allow_tf32
    accelerator = make_accelerator(options.precision)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def make_accelerator(precision: str) -> Accelerator:
    """Return accelerate's view of this process: its device and its rank.

    Args:
        precision: 32, bf16 or fp16.

    Raises:
        UserError: fp16 is asked for without a GPU.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("trainer.precision", "fp16 without a GPU", "32 or bf16", "set trainer.precision to bf16")
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    return Accelerator(
        # Without this flag and without a GPU, each process under torchrun trains alone and believes to be the first.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=MIXED_PRECISION[precision],
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
    )


def disconnect_at_exit(accelerator: Accelerator) -> None:
    """Let a process whose run is through end its connection to the others, with the threads that serve it, at its exit.

    C++ aborts a process now and then that exits with such a thread, and its launcher would say that a run failed whose
    result is written. Until the exit a further run of the same processes needs the connection.
    """
    if accelerator.num_processes > 1:
        atexit.register(accelerator.state.destroy_process_group)  # it does nothing a second time


@contextmanager
def termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, so that the run can finish and save its step.

    Python lets only the main thread handle signals; in another thread the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ctrl_c_asks(asked: threading.Event, is_alone: bool = True) -> Iterator[threading.Event]:
    """Let Ctrl-C set `asked`, as SIGTERM does, and yield an event that only Ctrl-C sets.

    A second Ctrl-C interrupts at once. One of several processes goes on until its step is saved: their launcher sends
    them each Ctrl-C once more. Where Ctrl-C is ignored, as in the background of a shell, it stays so.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield pressed
        return
    owner = os.getpid()

    def press(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a process that reads data, which still has to finish the step's batches
        if pressed.is_set() and is_alone:
            before(number, frame)
        elif not pressed.is_set():
            # Not by print: the signal may come in the middle of one.
            os.write(2, b"\nCtrl-C: what is being computed is finished and saved; Ctrl-C again ends at once\n")
        pressed.set()
        asked.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

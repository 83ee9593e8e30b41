"""Contestants that compute almost nothing, for processes that start quickly."""

import os
import signal
from pathlib import Path

import numpy as np

from mlc_controlnet.bench.operations.contestant import Side

OUTPUT = np.arange(6, dtype=np.float32).reshape(2, 3)


def adding(name: str, log: Path, output: np.ndarray = OUTPUT, held_mib: int = 0) -> Side:
    """Note every call in `log`, and return `output`. held_mib: memory that it fills."""
    held = np.ones(held_mib << 20, np.uint8)

    def call() -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{name} {held.nbytes and 'large'}\n")
        return output

    return Side(call, lambda: None, lambda result: [result])


def dying(calls: int) -> Side:
    """End by SIGKILL at the call after `calls`."""
    left = iter(range(calls))

    def call() -> np.ndarray:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return OUTPUT

    return Side(call, lambda: None, lambda result: [result])


def failing() -> Side:
    """Raise an error of several lines."""
    raise MemoryError("16 GB wanted\nby a library")

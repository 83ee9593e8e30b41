"""Prints the progress of a build."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from mlc_controlnet.config import BuildConfig
from mlc_controlnet.machine import peak_memory_bytes


class StageLog:
    """Prints the resolved configuration, and each stage: its name when it starts, its seconds when it ends.

    The seconds have a line of their own, because a stage may print notices. Beside them is the peak of memory.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.started = time.monotonic()
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"  {field.name:<15} {text}", flush=True)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as the stage `name`."""
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        yield
        print(f"  {time.monotonic() - started:.1f} s, {_gigabytes()} at most so far", flush=True)

    @property
    def summary(self) -> str:
        """The seconds since the start and the peak of this process's memory, in decimal gigabytes."""
        return f"{time.monotonic() - self.started:.0f} s, at most {_gigabytes()} of memory"


def _gigabytes() -> str:
    return f"{peak_memory_bytes() / 1e9:.1f} GB"

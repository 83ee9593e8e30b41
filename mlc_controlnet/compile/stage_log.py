"""Prints the progress of a build."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from mlc_controlnet.config import BuildConfig
from mlc_controlnet.machine import peak_memory_bytes


class StageLog:
    """Prints the resolved configuration, then one line per stage: its name at the start, its seconds at the end."""

    def __init__(self, config: BuildConfig) -> None:
        self.started = time.monotonic()
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"  {field.name:<15} {text}", flush=True)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"{name} ...", end=" ", flush=True)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            print(flush=True)
            raise
        print(f"{time.monotonic() - started:.1f} s", flush=True)

    @property
    def summary(self) -> str:
        """How long the build took so far, and the most memory that this process held, in decimal gigabytes."""
        return f"{time.monotonic() - self.started:.0f} s, at most {peak_memory_bytes() / 1e9:.1f} GB of memory"

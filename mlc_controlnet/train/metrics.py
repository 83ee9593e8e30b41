"""Reports the progress of a run: lines on the terminal, `metrics.jsonl`, TensorBoard."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from mlc_controlnet.errors import UserError
from mlc_controlnet.machine import peak_memory_bytes


class Metrics:
    """Writes the figures of a run. Processes other than the first write nothing.

    Args:
        folder: the run's folder, which gets `metrics.jsonl` and `logs/`.
        speaks: whether this is the first process.
        log: prints a line.
    """

    def __init__(self, folder: Path, speaks: bool, tensorboard: bool, log: Callable[[str], None]) -> None:
        self.folder, self.speaks, self._log = folder, speaks, log
        self._file = folder / "metrics.jsonl"
        if speaks and self._file.exists() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n")  # a run was killed in the middle of a line
        self._board = None
        if speaks and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                log("notice: no TensorBoard logs: pip install tensorboard")
            else:
                self._board = SummaryWriter(str(folder / "logs"))

    def log(self, line: str) -> None:
        """Print a line; in a run of several processes, only the first one speaks."""
        if self.speaks:
            self._log(line)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append values of one step to metrics.jsonl and to TensorBoard."""
        if not self.speaks:
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Save a picture. image: [H, W, 3] uint8."""
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Read the figures by step from a run's `metrics.jsonl`, in rising order.

    A run that was killed and resumed may have written steps twice, and lines in part. Of each step the later line
    counts, and lines after the step from which the run resumed are ignored.

    Raises:
        UserError: there is no such file.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        remedy = "pass the run's out folder"
        raise UserError(str(path), "no such file", "the figures of a run", remedy)
    figures: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        step = entry.pop("step")
        while figures and next(reversed(figures)) > step:
            figures.popitem()
        figures.setdefault(step, {}).update(entry)
    return figures


class Stopwatch:
    """Measures time and samples of the steps since the last reading, without what happens between steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = self.samples = 0

    @contextmanager
    def step(self, samples: int) -> Iterator[None]:
        """Measure the block as one step."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.steps += 1
        self.samples += samples

    def read(self) -> dict[str, float]:
        """Return samples_per_second and seconds_per_step, and start again. At least one step was measured."""
        figures = {"samples_per_second": self.samples / self.seconds, "seconds_per_step": self.seconds / self.steps}
        self.seconds, self.steps, self.samples = 0.0, 0, 0
        return figures


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory: the GPU's allocations, or on a processor the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_bytes() / 2**20

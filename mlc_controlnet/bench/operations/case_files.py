"""The files of a case: what each contestant's process reads, and what the outputs are compared with.

Arrays are read one at a time and by ordinary reads, so that a process's peak memory holds each only once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class CaseFiles:
    """The files of the case `name` in `folder`."""

    folder: Path
    name: str

    @property
    def inputs(self) -> Path:
        """Arrays: arguments of the module, in order."""
        return self._file("inputs")

    @property
    def params(self) -> Path:
        """Arrays: weights in the order of our compiled function."""
        return self._file("params")

    @property
    def module(self) -> Path:
        """The torch module and its inputs, a pair by torch.save."""
        return self._file("torch")

    @property
    def onnx(self) -> Path:
        """The module for the runtimes of ONNX files; its weights are in a second file, see `onnx_weights`."""
        return self._file("onnx")

    @property
    def onnx_weights(self) -> Path:
        """The file that torch's exporter writes beside `onnx`."""
        return self._file("onnx.data")

    @property
    def reference(self) -> Path:
        """Arrays: the outputs that torch computes in float32 on the processor."""
        return self._file("reference")

    @property
    def outputs(self) -> Path:
        """Arrays: the outputs of the contestant that wrote them last."""
        return self._file("outputs")

    def remove(self) -> None:
        """Delete those files that exist: together they have three times the size of the weights."""
        for file in (self.inputs, self.params, self.module, self.onnx, self.onnx_weights, self.reference, self.outputs):
            file.unlink(missing_ok=True)

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"


def write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays into one file, one after the other, each in row-major order."""
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, np.asarray(array, order="C"), allow_pickle=False)


def read_arrays(path: Path) -> Iterator[np.ndarray]:
    """Yield the arrays of a file by `write_arrays`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            yield np.load(file, allow_pickle=False)

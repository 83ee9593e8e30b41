"""Where candidates are measured: this machine, the servers of a tracker, the tabs of a browser.

A runner is given scheduled kernels and arguments. It compiles the kernels for its device, runs and times them there,
and brings back outputs and times. What is tried, what counts as right and what is kept is the same for all of them
(measuring_judge.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tvm import tirx


@dataclass(frozen=True)
class Job:
    """Kernels of one operation for one device, which take turns at being timed.

    Attributes:
        kernels: scheduled, with the operation's parameters.
        arguments: in the order of the parameters, the output last; all kernels get the same values. They are what
            values.draw_values gives for their dtypes, shapes and places: a device far away can draw them itself.
        rounds: how often each kernel is timed.
        known: the first place and the length of each run of the flat output that is looked at; empty: all of it is.
    """

    kernels: tuple[tirx.PrimFunc, ...]
    arguments: tuple[np.ndarray, ...]
    rounds: int = 1
    known: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Measured:
    """What a device made of a job.

    Attributes:
        outputs: of each kernel, after it ran on the device; shape and dtype of the last argument. What is not
            looked at may be NaN.
        rounds: of each round, the seconds of a call of each kernel.
        problem: why a kernel cannot be compiled, or why the device refuses it; then outputs and rounds are empty.
    """

    outputs: tuple[np.ndarray, ...] = ()
    rounds: tuple[tuple[float, ...], ...] = ()
    problem: str = ""


class Runner(Protocol):
    """Compiles kernels for a kind of device and measures them on one or several devices of this kind.

    Attributes:
        device: names the kind, in records and in the journal; times of different devices are never compared.
        family: the folder of its records, below the target's.
    """

    device: str
    family: str

    @property
    def batch(self) -> int:
        """How many jobs it measures at once, at the moment; 1 or more."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
        """Yield what became of each job, in order, as soon as it is known.

        It takes a job from `jobs` when it can begin with it. A device that vanishes costs time: another one measures
        its job.

        Raises:
            UserError: there is no device any more.
        """


def refusal(error: Exception) -> Measured:
    """Say that TVM refuses a kernel, from the error that it raises while it schedules or compiles it."""
    return Measured(problem=f"TVM refuses it: {str(error).strip().splitlines()[-1]}")

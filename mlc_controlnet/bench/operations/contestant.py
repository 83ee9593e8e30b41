"""One contestant at one case, in a process of its own, which runs its calls on request."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlc_controlnet.bench.operations.case_files import read_arrays, write_arrays
from mlc_controlnet.bench.operations.figures import Timing
from mlc_controlnet.bench.own_process import OwnProcess
from mlc_controlnet.machine import peak_memory_bytes

TURN_SECONDS = 0.05


@dataclass(frozen=True)
class Side:
    """A computation that is ready to run.

    Attributes:
        call: queues the work and returns its result.
        finish: waits for it.
        arrays: the outputs of a result.
        held: what has to stay in memory, such as inputs that a runtime reads where they are.
    """

    call: Callable[[], Any]
    finish: Callable[[], None]
    arrays: Callable[[Any], Sequence[np.ndarray]]
    held: object = None


@dataclass(frozen=True)
class Entrant:
    """A contestant before the contest.

    Attributes:
        name: one of the row's times.
        load: makes the computation, in the contestant's process; picklable.
        needs_torch: False keeps torch out of that process, and out of its peak memory.
    """

    name: str
    load: Callable[[], Side]
    needs_torch: bool = False


class Contestant(OwnProcess):
    """The process of one entrant. The end of a `with` block ends it.

    Attributes:
        load_ms, first_call_ms: see Timing.

    Raises ProcessFailed, also from every method, if the process ends or its computation raises an error.
    """

    def __init__(self, entrant: Entrant) -> None:
        super().__init__(entrant.name, entrant.needs_torch)
        self.load_ms, self.first_call_ms = self.call(_start, entrant.load)
        self._calls = max(1, math.ceil(1000 * TURN_SECONDS / self.call(_time_calls, 1)))

    def take_turn(self) -> float:
        """Return the mean milliseconds of one call, over as many calls as take about TURN_SECONDS."""
        milliseconds: float = self.call(_time_calls, self._calls)
        return milliseconds

    def timing(self, turns: Sequence[float], ours: Sequence[float] = ()) -> Timing:
        """Return the times of this contestant's turns, with its peak memory so far. ours: see `Timing.ours_wall_ms`."""
        peak = self.call(peak_memory_bytes) / 2**20
        return Timing(self.load_ms, self.first_call_ms, tuple(turns), (), tuple(ours), round(peak, 1))

    def outputs(self, file: Path) -> Iterator[np.ndarray]:
        """Call once more, write the outputs to `file`, and yield them.

        This comes after `timing`: peak memory is to be that of the calls alone.
        """
        self.call(_write_outputs, file)
        yield from read_arrays(file)


# The code below runs in the contestant's process, which has one side.
_side: Side


def _start(load: Callable[[], Side]) -> tuple[float, float]:
    """Load, call once, and return the milliseconds of each."""
    global _side
    began = time.perf_counter()
    _side = load()
    loaded = time.perf_counter()
    _call()
    return 1000 * (loaded - began), 1000 * (time.perf_counter() - loaded)


def _time_calls(calls: int) -> float:
    """Return the mean milliseconds of a call, after one that wakes the threads."""
    _call()
    began = time.perf_counter()
    for _ in range(calls):
        _side.call()
    _side.finish()
    return 1000 * (time.perf_counter() - began) / calls


def _call() -> Any:
    result = _side.call()
    _side.finish()
    return result


def _write_outputs(file: Path) -> None:
    write_arrays(file, _side.arrays(_call()))

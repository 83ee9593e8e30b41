"""Measures candidates on this machine's processor."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.machine import describe_processor
from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials
from mlc_controlnet.tuning.runner import Job, Measured, refusal

REPEATS, MIN_REPEAT_MS = 3, 20  # of a time, which is the least of several averages: other programs only add time


class Stopwatch:
    """One compiled kernel with its arguments. It can be timed any number of times.

    It compiles and runs in this process. MetaSchedule's own builder starts one process per schedule, and each imports
    torch and TVM, which takes fifty times as long as compiling. That isolation guards against schedules that crash or
    never end; our spaces contain none.
    """

    def __init__(self, kernel: tirx.PrimFunc, target: Target, arguments: Sequence[np.ndarray]) -> None:
        self._library = compile_kernel(kernel, target)
        self._arguments = [tvm.runtime.tensor(value) for value in arguments]

    def output(self) -> np.ndarray:
        """Run once and return the output."""
        self._library["main"](*self._arguments)
        return self._arguments[-1].numpy()

    def seconds(self) -> float:
        """Return the time of one call."""
        evaluate = self._library.mod.time_evaluator(
            "main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=MIN_REPEAT_MS
        )
        return float(min(evaluate(*self._arguments).results))


class ProcessorRunner:
    """Measures on this machine's processor, one job at a time."""

    batch = 1

    def __init__(self, target: Target, instruction_set: str) -> None:
        self.target = target
        self.device = describe_processor()
        self.family = instruction_set

    def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
        """Compile, run and time each job in this process."""
        return map(self._run, jobs)

    def _run(self, job: Job) -> Measured:
        try:
            watches = [Stopwatch(kernel, self.target, job.arguments) for kernel in job.kernels]
        except (ScheduleError, ValueError) as error:
            return refusal(error)
        outputs = tuple(watch.output() for watch in watches)
        return Measured(outputs, tuple(tuple(watch.seconds() for watch in watches) for _ in range(job.rounds)))


def compile_kernel(kernel: tirx.PrimFunc, target: Target) -> tvm.runtime.Executable:
    """Compile a scheduled kernel for a processor, as function main. Raises ScheduleError or ValueError."""
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    return tvm.compile(tvm.transform.Sequential([UseVectorExponentials()])(module), target=target)

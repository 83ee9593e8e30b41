"""Measures candidates on this machine's processor, and has the functions that measure on another one's, too."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import tvm
from tvm import tirx
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.machine import name_with_cores, processor_name, thread_count
from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials
from mlc_controlnet.tuning.runner import Job, Measured, refusal

REPEATS, MIN_REPEAT_MS = 3, 20  # of a time, which is the least of several averages: other programs only add time


class ProcessorRunner:
    """Measures on this machine's processor, one job at a time.

    It compiles and runs in this process. MetaSchedule's own builder starts one process per schedule, and each imports
    torch and TVM, which takes fifty times as long as compiling. That isolation guards against schedules that crash or
    never end; our spaces contain none.
    """

    batch = 1

    def __init__(self, target: Target, instruction_set: str) -> None:
        self.target = target
        self.device = name_with_cores(processor_name(), thread_count())  # of the cores that its threads keep busy
        self.family = instruction_set

    def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
        """Compile, run and time each job in this process."""
        return map(self._run, jobs)

    def _run(self, job: Job) -> Measured:
        try:
            libraries = [load_kernel(kernel, self.target) for kernel in job.kernels]
        except (ScheduleError, ValueError) as error:
            return refusal(error)
        return run_and_time(libraries, job, tvm.cpu())


def compile_kernel(kernel: tirx.PrimFunc, target: Target) -> tvm.runtime.Executable:
    """Compile a scheduled kernel for a processor, as function main. Raises ScheduleError or ValueError."""
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    return tvm.compile(tvm.transform.Sequential([UseVectorExponentials()])(module), target=target)


def load_kernel(kernel: tirx.PrimFunc, target: Target) -> tvm.runtime.Module:
    """Compile a kernel and load it from a file, as a library is: what TVM compiles in memory can be half as fast.

    So it was with a flash attention whose sums fill the registers. Raises what compile_kernel does.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder, "kernel.so")
        compile_kernel(kernel, target).export_library(str(file))
        return tvm.runtime.load_module(str(file))


def run_and_time(libraries: Sequence[tvm.runtime.Module], job: Job, device: tvm.runtime.Device) -> Measured:
    """Run the compiled kernels of a job on a device, here or far away, and time them in turns.

    They share the inputs, and each has an output of its own.
    """
    inputs = [tvm.runtime.tensor(value, device) for value in job.arguments[:-1]]
    calls = [(library, [*inputs, tvm.runtime.tensor(job.arguments[-1], device)]) for library in libraries]
    for library, arguments in calls:
        library["main"](*arguments)
    outputs = tuple(arguments[-1].numpy() for _, arguments in calls)
    watches = [
        (library.time_evaluator("main", device, number=1, repeat=REPEATS, min_repeat_ms=MIN_REPEAT_MS), arguments)
        for library, arguments in calls
    ]
    rounds = tuple(
        tuple(float(min(watch(*arguments).results)) for watch, arguments in watches) for _ in range(job.rounds)
    )
    return Measured(outputs, rounds)

"""Judges candidates on this machine's processor: compiles them, checks them, and takes their time."""

import statistics
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.machine import describe_processor
from mlc_controlnet.passes.schedule.tuning_records import MEASURED
from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials
from mlc_controlnet.tuning.judge import Candidate, Comparison, Trial
from mlc_controlnet.tuning.reference import Reference, make_reference
from mlc_controlnet.tuning.tasks import Task

REPEATS, MIN_REPEAT_MS = 3, 20  # of a trial
ROUNDS = 7  # in which finalists and rules take turns


class Stopwatch:
    """One compiled kernel with its arguments. It can be timed any number of times.

    It compiles and runs in this process. MetaSchedule's own builder starts one process per schedule, and each imports
    torch and TVM, which takes fifty times as long as compiling. That isolation guards against schedules that crash or
    never end; our spaces contain none.
    """

    def __init__(self, kernel: tirx.PrimFunc, target: Target, arguments: Sequence[np.ndarray]) -> None:
        module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
        self._library = tvm.compile(tvm.transform.Sequential([UseVectorExponentials()])(module), target=target)
        self._arguments = [tvm.runtime.tensor(value) for value in arguments]

    def output(self) -> np.ndarray:
        """Run once and return the output."""
        self._library["main"](*self._arguments)
        return self._arguments[-1].numpy()

    def seconds(self, repeats: int = REPEATS) -> float:
        """Return the time of one call: the minimum of several averages, because other programs only add time."""
        evaluate = self._library.mod.time_evaluator(
            "main", tvm.cpu(), number=1, repeat=repeats, min_repeat_ms=MIN_REPEAT_MS
        )
        return float(min(evaluate(*self._arguments).results))


class ProcessorJudge:
    """Measures on this machine's processor."""

    how = MEASURED
    batch = 1

    def __init__(self, target: Target, instruction_set: str) -> None:
        self.target = target
        self.device = describe_processor()
        self.devices: Collection[str] = (self.device,)
        self.families: Mapping[str, str] = {self.device: instruction_set}
        self._reference: tuple[str, Reference] | None = None

    def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """Compile, check and time each candidate."""
        return [self._judge(task, decisions) for task, decisions in candidates]

    def compare(self, task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        """Let finalists and rules take turns.

        The ratios within a round decide, because a busy machine slows all of them equally.
        """
        rules, *others = (self._stopwatch(task, one) for one in (task.tunable.chosen, *finalists))
        rounds = [[watch.seconds() for watch in (rules, *others)] for _ in range(ROUNDS)]
        by_rules = min(times[0] for times in rounds)
        reference = self.reference_of(task)
        found = []
        for number, (decisions, watch) in enumerate(zip(finalists, others, strict=True), 1):
            ratio = statistics.median(times[number] / times[0] for times in rounds)
            decibels = reference.decibels(watch.output())
            problem = _problem(decibels, reference)
            seconds = {self.device: by_rules * ratio}
            found.append(Comparison(decisions, seconds, {self.device: by_rules}, decibels, problem))
        return found

    def reference_of(self, task: Task) -> Reference:
        """Return the task's reference. It is made once for all trials of a task."""
        if self._reference is None or self._reference[0] != task.key:
            self._reference = task.key, make_reference(task.function, self.target)
        return self._reference[1]

    def _judge(self, task: Task, decisions: Decisions) -> Trial:
        try:
            watch = self._stopwatch(task, decisions)
        except (ScheduleError, ValueError) as error:
            return Trial(decisions, {}, f"TVM refuses it: {str(error).strip().splitlines()[-1]}")
        problem = _problem(self.reference_of(task).decibels(watch.output()), self.reference_of(task))
        return Trial(decisions, {} if problem else {self.device: watch.seconds()}, problem)

    def _stopwatch(self, task: Task, decisions: Decisions) -> Stopwatch:
        return Stopwatch(task.tunable.schedule(decisions), self.target, self.reference_of(task).arguments)


def _problem(decibels: float, reference: Reference) -> str:
    least = reference.least_decibels
    return "" if decibels >= least else f"differs from the reference: {decibels:.0f} dB, wanted {least:.0f}"

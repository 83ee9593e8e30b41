"""Judges candidates by what a runner measures: schedules them, has them run, compares outputs with the reference."""

import statistics
from collections import deque
from collections.abc import Iterator, Sequence

from tvm import tirx
from tvm.s_tir import ScheduleError

from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import MEASURED
from mlc_controlnet.tuning.judge import Candidate, Comparison, Trial
from mlc_controlnet.tuning.reference import Reference, make_reference
from mlc_controlnet.tuning.runner import Job, Measured, Runner, refusal
from mlc_controlnet.tuning.tasks import Task

ROUNDS = 7  # in which finalists and rules take turns


class MeasuringJudge:
    """Measures on the devices of a runner. References are computed on this machine's processor."""

    how = MEASURED
    finalists = 3

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.devices = (runner.device,)
        self.families = {runner.device: runner.family}
        self._reference: tuple[str, Reference] | None = None

    @property
    def batch(self) -> int:
        """As many candidates as the runner measures at once."""
        return self.runner.batch

    def judge(self, candidates: Sequence[Candidate]) -> Iterator[Trial]:
        """Measure each candidate, and check what it computed."""
        kernels = [_schedule(task, decisions) for task, decisions in candidates]
        waiting: deque[Reference] = deque()

        def jobs() -> Iterator[Job]:
            for (task, _), kernel in zip(candidates, kernels, strict=True):
                if isinstance(kernel, tirx.PrimFunc):
                    waiting.append(self.reference_of(task))
                    yield Job((kernel,), waiting[-1].arguments, known=waiting[-1].known)

        results = self.runner.run(jobs())
        for (_, decisions), kernel in zip(candidates, kernels, strict=True):
            measured = kernel if isinstance(kernel, Measured) else next(results)
            problem = measured.problem
            if isinstance(kernel, tirx.PrimFunc):
                reference = waiting.popleft()
                problem = problem or reference.problem(reference.decibels(measured.outputs[0]))
            yield Trial(decisions, {} if problem else {self.runner.device: measured.rounds[0][0]}, problem)

    def compare(self, task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        """Let finalists and rules take turns on one device.

        The ratios within a round decide, because a busy machine slows all of them equally.
        """
        reference = self.reference_of(task)
        kernels = tuple(task.tunable.schedule(one) for one in (task.tunable.chosen, *finalists))
        (measured,) = self.runner.run([Job(kernels, reference.arguments, ROUNDS, reference.known)])
        if measured.problem:
            return [Comparison(one, {}, {}, 0.0, measured.problem) for one in finalists]
        device = self.runner.device
        by_rules = min(times[0] for times in measured.rounds)
        compared = []
        for number, decisions in enumerate(finalists, 1):
            ratio = statistics.median(times[number] / times[0] for times in measured.rounds)
            decibels = reference.decibels(measured.outputs[number])
            problem = reference.problem(decibels)
            compared.append(Comparison(decisions, {device: by_rules * ratio}, {device: by_rules}, decibels, problem))
        return compared

    def reference_of(self, task: Task) -> Reference:
        """Return the task's reference. It is made once for all trials of a task."""
        if self._reference is None or self._reference[0] != task.key:
            self._reference = task.key, make_reference(task.function, tvm_target(TARGETS["llvm"]))
        return self._reference[1]


def _schedule(task: Task, decisions: Decisions) -> tirx.PrimFunc | Measured:
    try:
        return task.tunable.schedule(decisions)
    except (ScheduleError, ValueError) as error:
        return refusal(error)

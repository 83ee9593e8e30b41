"""What a search asks of a device: the times of candidates, and a last comparison of the best with the rules."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.tuning.tasks import Task

Candidate = tuple[Task, Decisions]


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        seconds: of a call, by device; none if it failed.
        problem: why it failed.
    """

    decisions: Decisions
    seconds: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the rules' choice, by device.

    Attributes:
        decibels: agreement with the reference on random inputs.
        problem: why it may not be used; empty if it may.
    """

    decisions: Decisions
    seconds: Mapping[str, float]
    rules_seconds: Mapping[str, float]
    decibels: float
    problem: str = ""


class Judge(Protocol):
    """Measures candidates, or predicts them."""

    @property
    def how(self) -> str:
        """MEASURED or PREDICTED."""

    @property
    def devices(self) -> Collection[str]:
        """What a trial has times of."""

    @property
    def families(self) -> Mapping[str, str]:
        """Device -> the folder of its records, below the target's; all that a comparison has times of."""

    @property
    def batch(self) -> int:
        """How many candidates of a task to hand over at once."""

    @property
    def finalists(self) -> int:
        """How many of a search's best to compare."""

    def judge(self, candidates: Sequence[Candidate]) -> Iterable[Trial]:
        """Return a trial for each candidate, in order, each as soon as it is made. They may be of several tasks."""

    def compare(self, task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        """Compare the finalists with the rules and with the reference."""

"""Searches a task's space: times every candidate once, then the best few alternating with the rules' schedule."""

import statistics
from dataclasses import dataclass

from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.tuning.measure import Stopwatch
from mlc_controlnet.tuning.tasks import Task, list_candidates, schedule_by_rules

FINALISTS = 3
FINAL_ROUNDS = 5
WORTH_A_RECORD = 0.9  # of the rules' time: a smaller gain is noise, and a record needs space


@dataclass(frozen=True)
class Found:
    """A task's best schedule, with the seconds of one call under the rules' schedule and under this one."""

    task: Task
    schedule: Schedule
    seconds_by_rules: float
    seconds: float


def search(task: Task, target: Target) -> Found | None:
    """Find the fastest schedule of `task`; None if none is clearly faster than the rules' schedule.

    The rules' schedule and the finalists run in every final round. The ratios within a round decide, because a busy
    machine slows all of them equally.
    """
    timed = []
    for schedule in list_candidates(task.function, target):
        stopwatch = Stopwatch(schedule, target)
        timed.append((stopwatch.seconds(), schedule, stopwatch))
    finalists = sorted(timed, key=lambda item: item[0])[:FINALISTS]
    rules = Stopwatch(schedule_by_rules(task.function, target), target)
    rounds = [(rules.seconds(), *(stopwatch.seconds() for _, _, stopwatch in finalists)) for _ in range(FINAL_ROUNDS)]
    by_rules, *others = zip(*rounds, strict=True)
    ratios = [
        statistics.median(mine / theirs for mine, theirs in zip(times, by_rules, strict=True)) for times in others
    ]
    if not ratios or min(ratios) > WORTH_A_RECORD:
        return None
    best = ratios.index(min(ratios))
    return Found(task, finalists[best][1], min(by_rules), min(others[best]))

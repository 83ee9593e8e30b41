"""The search: every candidate once, then the best few against the rules' choice, in turn."""

import statistics
from dataclasses import dataclass

from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.tuning.measure import Stopwatch
from mlc_controlnet.tuning.tasks import Task, list_candidates, schedule_by_rules

FINALISTS = 3
FINAL_ROUNDS = 5
WORTH_A_RECORD = 0.9  # of the rules' time: a record is 70 KB, and a smaller gain is noise


@dataclass(frozen=True)
class Found:
    """A task's best schedule, and what one call takes under the rules' and under it."""

    task: Task
    schedule: Schedule
    seconds_by_rules: float
    seconds: float


def search(task: Task, target: Target) -> Found | None:
    """None if no candidate is clearly faster than what the rules choose.

    The rules' schedule runs in every final round beside the finalists, and the ratios within a round decide: a busy
    machine slows all of them alike.
    """
    timed = []
    for schedule in list_candidates(task.function):
        stopwatch = Stopwatch(schedule, target)
        timed.append((stopwatch.seconds(), schedule, stopwatch))
    finalists = sorted(timed, key=lambda item: item[0])[:FINALISTS]
    rules = Stopwatch(schedule_by_rules(task.function), target)
    rounds = [(rules.seconds(), *(stopwatch.seconds() for _, _, stopwatch in finalists)) for _ in range(FINAL_ROUNDS)]
    by_rules, *others = zip(*rounds, strict=True)
    ratios = [
        statistics.median(mine / theirs for mine, theirs in zip(times, by_rules, strict=True)) for times in others
    ]
    if not ratios or min(ratios) > WORTH_A_RECORD:
        return None
    best = ratios.index(min(ratios))
    return Found(task, finalists[best][1], min(by_rules), min(others[best]))

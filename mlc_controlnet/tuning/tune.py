"""Tunes the heaviest operations of a model and writes what wins as records."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import (
    RECORDS_FILE,
    WORST_LOSS,
    WORTH_A_RECORD,
    Record,
    families_of,
    geometric_mean,
    read_file,
    write_decisions,
)
from mlc_controlnet.tuning.journal import Journal
from mlc_controlnet.tuning.judge import Comparison, Judge, Trial
from mlc_controlnet.tuning.records import append_record, record_of, write_about
from mlc_controlnet.tuning.search import Search
from mlc_controlnet.tuning.tasks import Task

CHUNK = 16  # tasks


@dataclass(frozen=True)
class TuneSettings:
    """What a run of `tune` is allowed.

    Attributes:
        tasks: how many of the heaviest operations to tune.
        trials: of each operation, those of earlier runs included.
        seconds: after which no new trial begins.
        folder: below which the families' folders lie.
        journal: the file of trials.
        command: how to run it again; it is kept with the records.
    """

    tasks: int
    trials: int
    seconds: float
    seed: int
    folder: Path
    journal: Path
    command: str


class OutOfTime(Exception):
    """The time limit has passed; what was tried is in the journal."""


def tune(tasks: Sequence[Task], judge: Judge, settings: TuneSettings) -> Iterator[str]:
    """Tune the heaviest of `tasks`, append records to the families' folders, and yield lines of progress."""
    ends = time.monotonic() + settings.seconds
    journal = Journal(settings.journal, judge.devices)
    before: dict[str, float] = {}  # seconds per picture under the rules
    wrong = 0
    try:
        for task, trial in zip(tasks, _try_rules(tasks, judge, journal, ends), strict=True):
            if trial.seconds:
                before[task.key] = task.calls * geometric_mean(list(trial.seconds.values()))
            else:
                yield f"left out {task.title}: {trial.problem}"
        order = sorted((task for task in tasks if task.key in before), key=lambda task: -before[task.key])
        total = sum(before.values())
        chosen = order[: settings.tasks]
        share = sum(before[task.key] for task in chosen) / total if total else 0.0
        yield (
            f"{len(order)} operations take {1e3 * total:.1f} ms under the rules; "
            f"tuning the heaviest {len(chosen)}, {share:.0%} of the time"
        )
        saved = 0.0
        for number, task in enumerate(chosen, 1):
            heading = f"[{number}/{len(chosen)}] {task.title}, {before[task.key] / total:.1%} of the time"
            trials, ratio = journal.finished(task.key)
            is_done = trials >= settings.trials and (ratio == 1 or _is_recorded(task, judge, settings.folder))
            if not is_done:
                best, others, problems = _search(task, judge, journal, settings, ends)
                wrong += problems
                ratio = 1.0 if best is None else _mean_ratio(best)
                for compared in others if best is None else [best, *others]:
                    _record(task, compared, judge, settings)
                journal.finish(task.key, settings.trials, ratio)
            saved += (1 - ratio) * before[task.key]
            outcome = "the rules are as good" if ratio == 1 else f"{ratio:.3f} of the rules' time"
            found = "done before, " if is_done else ""
            yield f"{heading}: {found}{outcome}; the whole so far: {1 - saved / total:.3f}"
    except OutOfTime:
        yield "the time limit has passed: the same command goes on from here"
    yield f"{wrong} candidates discarded: refused, or different from the reference"


def _record(task: Task, compared: Comparison, judge: Judge, settings: TuneSettings) -> None:
    """Append a decision to the records of each family, with its figures there, unless it has some already."""
    for device, family in judge.families.items():
        new = record_of(task, compared, device, judge.how)
        if all(
            one.decisions != new.decisions for one in _records_of(task, settings.folder / family, device, judge.how)
        ):
            append_record(settings.folder / family, new)
        write_about(settings.folder / family, settings.command)


def _is_recorded(task: Task, judge: Judge, folder: Path) -> bool:
    """Return whether all families have a record of the task: an earlier run may have had another folder."""
    return all(_records_of(task, folder / family, device, judge.how) for device, family in judge.families.items())


def _records_of(task: Task, family: Path, device: str, how: str) -> list[Record]:
    """Return what a family's folder holds of a task on a device."""
    records, _ = read_file(family / RECORDS_FILE)
    return [one for one in records if (one.operation.key, one.device, one.how) == (task.key, device, how)]


def _known_elsewhere(task: Task, folder: Path) -> list[Decisions]:
    """Return what the records of any family decide about a task, as far as its space allows it."""
    records = [record for family in families_of(folder) for record in read_file(family / RECORDS_FILE)[0]]
    known = {write_decisions(record.decisions) for record in records if record.operation.key == task.key}
    return [one for one in task.tunable.space() if write_decisions(one) in known] if known else []


def _search(
    task: Task, judge: Judge, journal: Journal, settings: TuneSettings, ends: float
) -> tuple[Comparison | None, list[Comparison], int]:
    """Search one task.

    Returns:
        The winner, None for the rules; the right ones of what other families have records of; how many candidates were
        discarded. A bundle for all families needs to know of each how a decision does there, also if it loses.
    """
    search = Search(task.tunable.space(), task.tunable.chosen, settings.seed)
    rules = journal.find(task.key, task.tunable.chosen)
    assert rules is not None, "the rules were tried first"
    for trial in journal.trials_of(task.key):
        search.tell(trial.decisions, _figure(trial, rules))
    while len(search.times) < settings.trials:
        candidates = search.ask(min(judge.batch, settings.trials - len(search.times)))
        if not candidates:
            break
        for trial in _try(task, candidates, judge, journal, ends):
            search.tell(trial.decisions, _figure(trial, rules))
    discarded = sum(1 for trial in journal.trials_of(task.key) if trial.problem)
    known = _known_elsewhere(task, settings.folder)
    finalists = search.best(judge.finalists, below=1.0)
    compared = judge.compare(task, finalists) if finalists else []
    decided = [task.tunable.chosen, *(one.decisions for one in compared)]
    # Each by itself: a judge may stop at the first right one.
    compared += [one for other in known if other not in decided for one in judge.compare(task, [other])]
    winners = [one for one in compared if not one.problem and max(_ratios(one)) <= WORST_LOSS]
    best = min(winners, key=_mean_ratio, default=None)
    discarded += sum(1 for one in compared if one.problem)
    if best is not None and _mean_ratio(best) > WORTH_A_RECORD:
        best = None
    others = [one for one in compared if one is not best and not one.problem and one.decisions in known]
    return best, others, discarded


def _try_rules(tasks: Sequence[Task], judge: Judge, journal: Journal, ends: float) -> list[Trial]:
    """Return the trials of all tasks' choices by the rules, CHUNK tasks at a time."""
    new = [task for task in tasks if journal.find(task.key, task.tunable.chosen) is None]
    while new:
        if time.monotonic() > ends:
            raise OutOfTime
        some, new = new[:CHUNK], new[CHUNK:]
        trials = judge.judge([(task, task.tunable.chosen) for task in some])
        for task, trial in zip(some, trials, strict=True):
            journal.add(task.key, trial)
    found = [journal.find(task.key, task.tunable.chosen) for task in tasks]
    return [trial for trial in found if trial is not None]


def _try(task: Task, candidates: Sequence[Decisions], judge: Judge, journal: Journal, ends: float) -> list[Trial]:
    """Return the candidates' trials, from the journal where they were made before."""
    new = [one for one in candidates if journal.find(task.key, one) is None]
    if new:
        if time.monotonic() > ends:
            raise OutOfTime
        for trial in judge.judge([(task, one) for one in new]):
            journal.add(task.key, trial)
    found = [journal.find(task.key, one) for one in candidates]
    return [trial for trial in found if trial is not None]


def _figure(trial: Trial, rules: Trial) -> float | None:
    """Return the mean of a trial's times over the rules', with a loss on one device counted once more."""
    if not trial.seconds:
        return None
    ratios = [seconds / rules.seconds[device] for device, seconds in trial.seconds.items()]
    return geometric_mean(ratios) * max(1.0, max(ratios) / WORST_LOSS)


def _ratios(compared: Comparison) -> list[float]:
    return [seconds / compared.rules_seconds[device] for device, seconds in compared.seconds.items()]


def _mean_ratio(compared: Comparison) -> float:
    return geometric_mean(_ratios(compared))

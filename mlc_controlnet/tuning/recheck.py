"""Measures again what records decide, or predicts it again, and keeps what still wins.

A search takes the best of many trials, of which some had luck, and other programs may have run beside it. A prediction
is the same each time, but what the rules choose changes: then a record may decide what they decide now.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tvm

from mlc_controlnet.files import write_bytes
from mlc_controlnet.passes.schedule.tuning_records import (
    MEASURED,
    PREDICTED,
    RECORDS_FILE,
    WORST_LOSS,
    WORTH_A_RECORD,
    NotARecord,
    Record,
    geometric_mean,
    parse_line,
    read_file,
    write_decisions,
)
from mlc_controlnet.tuning.judge import Comparison, Judge
from mlc_controlnet.tuning.records import tvm_hash, write_about
from mlc_controlnet.tuning.tasks import Task

TIMES = {MEASURED: 2, PREDICTED: 1}  # of which the worse one counts; a prediction is the same each time


def recheck(tasks: Sequence[Task], judge: Judge, folder: Path, command: str) -> Iterator[str]:
    """Compare the records of the judge's devices with the rules, take out those that do not win, and yield a line each.

    A decision wins on the geometric mean over the devices, and loses more than WORST_LOSS on none. Records of other
    devices and of operations that are none of `tasks` stay as they are.

    tasks: of which the records are looked at.
    folder: below which the families' folders lie.
    """
    files = {device: folder / family / RECORDS_FILE for device, family in judge.families.items()}
    of_key = {task.key: task for task in tasks}
    kept: dict[tuple[str, str], dict[str, Record]] = {}  # operation and decisions -> of each device
    for device, file in files.items():
        for record in read_file(file)[0]:
            if record.operation.key in of_key and (record.device, record.how) == (device, judge.how):
                kept.setdefault((record.operation.key, write_decisions(record.decisions)), {})[device] = record
    before = after = 0.0
    taken_out = 0
    for (key, decisions), records in kept.items():
        task = of_key[key]
        is_the_rules = decisions == write_decisions(task.tunable.chosen)
        found = {} if is_the_rules else _compare(task, records, judge)
        before += task.calls * sum(record.rules_seconds for record in found.values())
        after += task.calls * sum(min(record.seconds, record.rules_seconds) for record in found.values())
        ratios = [record.ratio for record in found.values()]
        wins = bool(ratios) and geometric_mean(ratios) <= WORTH_A_RECORD and max(ratios) <= WORST_LOSS
        said = "what the rules decide" if is_the_rules else "no longer applies"
        said = f"{geometric_mean(ratios):.3f} of the rules' time" if ratios else said
        yield f"{said}: {task.title}" if wins else f"taken out: {task.title}, {said}"
        taken_out += 0 if wins else len(records)
        for device, record in records.items():
            _replace(files[device], record, found[device] if wins else None)
    for device in {device for records in kept.values() for device in records}:
        write_about(files[device].parent, command)
    share = f": {after / before:.3f} of the rules' time" if before else ""
    again = "measured again on" if judge.how == MEASURED else "predicted again for"
    checked = sum(map(len, kept.values()))
    yield (
        f"{checked} records {again} {' and '.join(files)}, {taken_out} taken out; the operations of all of them{share}"
    )


def _compare(task: Task, records: Mapping[str, Record], judge: Judge) -> dict[str, Record]:
    """Return the records of one decision with the worst of their figures; none if it must not be used."""
    decisions = next(iter(records.values())).decisions
    if decisions not in task.tunable.space():
        return {}
    times = TIMES[judge.how]
    compared: list[Comparison] = [one for _ in range(times) for one in judge.compare(task, [decisions])]
    if len(compared) < times or any(one.problem for one in compared):
        return {}
    found = {}
    for device, record in records.items():
        worst = max(compared, key=lambda one: one.seconds[device] / one.rules_seconds[device])
        found[device] = dataclasses.replace(
            record,
            seconds=worst.seconds[device],
            rules_seconds=worst.rules_seconds[device],
            decibels=round(worst.decibels, 1),
            tvm=tvm.__version__,
            tvm_hash=tvm_hash(task.function),
        )
    return found


def _replace(file: Path, old: Record, new: Record | None) -> None:
    """Write the file with another record in the place of one, or without it; other lines stay as they are."""
    lines = file.read_bytes().splitlines(keepends=True)
    there = b"" if new is None else new.to_line().encode()
    write_bytes(file, b"".join(there if _record(line) == old else line for line in lines))


def _record(line: bytes) -> Record | None:
    try:
        return parse_line(line)
    except NotARecord:
        return None

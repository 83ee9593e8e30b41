"""Measures again what records decide, and keeps what still wins.

A search takes the best of many trials, of which some had luck, and other programs may have run beside it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlc_controlnet.files import write_bytes
from mlc_controlnet.passes.schedule.tuning_records import (
    RECORDS_FILE,
    WORTH_A_RECORD,
    NotARecord,
    Record,
    parse_line,
    read_file,
)
from mlc_controlnet.tuning.judge import Comparison, Judge
from mlc_controlnet.tuning.records import tvm_hash, write_about
from mlc_controlnet.tuning.tasks import Task

TIMES = 2  # of which the worse one counts


def recheck(tasks: Sequence[Task], judge: Judge, folder: Path, command: str) -> Iterator[str]:
    """Compare the records of the judge's device with the rules, take out those that do not win, and yield a line each.

    Records of other devices and of operations that are none of `tasks` stay as they are.

    tasks: of which the records are looked at.
    folder: below which the family's folder lies.
    """
    ((device, family),) = judge.families.items()
    file = folder / family / RECORDS_FILE
    of_key = {task.key: task for task in tasks}
    records, _ = read_file(file)
    before = after = 0.0
    taken_out = checked = 0
    for record in records:
        task = of_key.get(record.operation.key)
        if task is None or (record.device, record.how) != (device, judge.how):
            continue
        checked += 1
        found = _compare(task, record, judge)
        before += 0.0 if found is None else task.calls * found.rules_seconds
        after += 0.0 if found is None else task.calls * min(found.seconds, found.rules_seconds)
        if found is None or found.ratio > WORTH_A_RECORD:
            taken_out += 1
            said = "no longer applies" if found is None else f"{found.ratio:.3f} of the rules' time"
            yield f"taken out: {task.title}, {said}"
            _replace(file, record, None)
        else:
            yield f"{found.ratio:.3f} of the rules' time: {task.title}"
            _replace(file, record, found)
    if checked:
        write_about(folder / family, command)
    share = f": {after / before:.3f} of the rules' time" if before else ""
    yield f"{checked} records measured again on {device}, {taken_out} taken out; the operations of all of them{share}"


def _compare(task: Task, record: Record, judge: Judge) -> Record | None:
    """Return the record with the worse figures of several comparisons; None if it must not be used."""
    if record.decisions not in task.tunable.space():
        return None
    compared: list[Comparison] = [one for _ in range(TIMES) for one in judge.compare(task, [record.decisions])]
    if len(compared) < TIMES or any(one.problem for one in compared):
        return None
    device = record.device
    worst = max(compared, key=lambda one: one.seconds[device] / one.rules_seconds[device])
    return dataclasses.replace(
        record,
        seconds=worst.seconds[device],
        rules_seconds=worst.rules_seconds[device],
        decibels=round(worst.decibels, 1),
        tvm_hash=tvm_hash(task.function),
    )


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

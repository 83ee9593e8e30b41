"""Writes tuning records, what about.json says of them, and merges sets of records."""

import datetime
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx

from mlc_controlnet.files import append_line, write_text
from mlc_controlnet.passes.schedule.tuning_records import (
    ABOUT_FILE,
    RECORDS_FILE,
    Record,
    families_of,
    keep_fastest,
    read_file,
    write_decisions,
)
from mlc_controlnet.tuning.judge import Comparison
from mlc_controlnet.tuning.tasks import Task

Decision = tuple[str, str]  # an operation's key, and what is decided about it


def record_of(task: Task, compared: Comparison, device: str, how: str) -> Record:
    """Describe a comparison on one device."""
    return Record(
        operation=task.tunable.operation,
        decisions={name: int(value) for name, value in compared.decisions.items()},
        seconds=compared.seconds[device],
        rules_seconds=compared.rules_seconds[device],
        how=how,
        device=device,
        decibels=round(compared.decibels, 1),
        tvm=tvm.__version__,
        tvm_hash=tvm_hash(task.function),
    )


def tvm_hash(function: tirx.PrimFunc) -> str:
    """Return this TVM's structural hash of a function, whatever its name: 16 hex digits."""
    return f"{tvm_ffi.structural_hash(function.without_attr('global_symbol')) & (2**64 - 1):016x}"


def append_record(folder: Path, record: Record) -> None:
    """Append a record to a family's folder, and wait until it is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    append_line(folder / RECORDS_FILE, record.to_line())


def write_about(folder: Path, command: str, merged: Sequence[Path] = ()) -> None:
    """Write about.json beside a family's records: the runs that made them, and before and after of each operation.

    merged: other folders whose records are among them.
    """
    records, _ = read_file(folder / RECORDS_FILE)
    runs: list[object] = []
    for one in (run for source in (folder, *merged) for run in _runs_of(source)):
        if one not in runs:
            runs.append(one)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    run = {"command": command, "date": today, "apache_tvm": tvm.__version__}
    about = {
        "family": folder.name,
        "runs": [*(one for one in runs if one != run), run],
        "records": [
            {
                "operation": record.operation.title,
                "before_us": round(record.rules_seconds * 1e6, 2),
                "after_us": round(record.seconds * 1e6, 2),
                "from": record.source,
            }
            for record in keep_fastest(records)
        ],
    }
    write_text(folder / ABOUT_FILE, json.dumps(about, indent=1) + "\n")


def _runs_of(folder: Path) -> list[object]:
    """Return the runs that a family's about.json lists; none if it cannot be read."""
    try:
        return list(json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))["runs"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def merge(sources: Sequence[Path], folder: Path, shared: Collection[Decision] = ()) -> tuple[int, int]:
    """Add the records of other folders to a family's: the faster ones for each device, measured before predicted.

    shared: what other families have records of. They stay although others are faster here: a bundle for all families
        takes a decision that each of them has a figure for.

    Returns:
        How many records the folder holds now, and how many lines were no records that apply, and are left out.
    """
    records: list[Record] = []
    skipped = 0
    for source in (folder, *sources):
        found, lines = read_file(source / RECORDS_FILE)
        records += found
        skipped += len(lines)
    fastest = keep_fastest(records)
    best: dict[tuple[str, str], Record] = {}  # of each operation and device
    for record in fastest:
        place = record.operation.key, record.device
        if place not in best or record.ratio < best[place].ratio:
            best[place] = record
    held = [one for one in fastest if one is best[one.operation.key, one.device] or _decision(one) in shared]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORDS_FILE, "".join(record.to_line() for record in held))
    return len(held), skipped


def merge_all(source: Path, folder: Path, command: str) -> Iterator[str]:
    """Merge every family below `source`, a folder like tuning_db/, into `folder`; yield a line for each."""
    for target in families_of(source):
        every = [*families_of(target), *families_of(folder / target.name)]
        found = {family: read_file(family / RECORDS_FILE)[0] for family in every}
        for family in families_of(target):
            into = folder / target.name / family.name
            others = (records for of, records in found.items() if of.name != family.name)
            held, skipped = merge([family], into, {_decision(record) for records in others for record in records})
            write_about(into, command, [family])
            yield f"{target.name}/{family.name}: {held} records, {skipped} lines that are no records left out"


def _decision(record: Record) -> Decision:
    return record.operation.key, write_decisions(record.decisions)

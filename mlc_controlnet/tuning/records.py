"""Writes tuning records, what about.json says of them, and merges sets of records."""

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import tvm

from mlc_controlnet.files import append_line, write_text
from mlc_controlnet.passes.schedule.tuning_records import (
    ABOUT_FILE,
    RECORDS_FILE,
    Record,
    families_of,
    keep_fastest,
    read_file,
)
from mlc_controlnet.tuning.judge import Comparison
from mlc_controlnet.tuning.tasks import Task


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
    )


def append_record(folder: Path, record: Record) -> None:
    """Append a record to a family's folder, and wait until it is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    append_line(folder / RECORDS_FILE, record.to_line())


def write_about(folder: Path, command: str) -> None:
    """Write about.json beside a family's records: the runs that made them, and before and after of each operation."""
    records, _ = read_file(folder / RECORDS_FILE)
    file = folder / ABOUT_FILE
    try:
        runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        runs = []
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
    write_text(file, json.dumps(about, indent=1) + "\n")


def merge(sources: Sequence[Path], folder: Path) -> tuple[int, int]:
    """Add the records of other folders to a family's: the faster ones for each device, measured before predicted.

    Returns:
        How many records the folder holds now, and how many lines were no records that apply, and are left out.
    """
    records: list[Record] = []
    skipped = 0
    for source in (folder, *sources):
        found, lines = read_file(source / RECORDS_FILE)
        records += found
        skipped += len(lines)
    best: dict[tuple[str, str], Record] = {}  # of each operation and device
    for record in keep_fastest(records):
        place = record.operation.key, record.device
        if place not in best or record.ratio < best[place].ratio:
            best[place] = record
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORDS_FILE, "".join(record.to_line() for record in best.values()))
    return len(best), skipped


def merge_all(source: Path, folder: Path, command: str) -> Iterator[str]:
    """Merge every family below `source`, a folder like tuning_db/, into `folder`; yield a line for each."""
    for target in families_of(source):
        for family in families_of(target):
            into = folder / target.name / family.name
            held, skipped = merge([family], into)
            write_about(into, command)
            yield f"{target.name}/{family.name}: {held} records, {skipped} lines that are no records left out"

"""Writes a set of tuning records: MetaSchedule's two files, and about.json with the set's origin."""

import datetime
import json
import shutil
import tempfile
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule
from tvm.target import Target

from mlc_controlnet.machine import describe_processor
from mlc_controlnet.passes.schedule.apply_tuning_records import as_workload
from mlc_controlnet.tuning.search import Found


def write_records(folder: Path, found: list[Found], target: Target, command: str) -> None:
    """Replace the set in `folder`, with one record per workload. The next search starts from nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        database = meta_schedule.database.JSONDatabase(work_dir=scratch, allow_missing=True)
        for item in found:
            workload = database.commit_workload(as_workload(item.task.function))
            arguments = meta_schedule.arg_info.ArgInfo.from_entry_func(workload.mod, remove_preproc=True)
            database.commit_tuning_record(
                meta_schedule.database.TuningRecord(item.schedule.trace, workload, [item.seconds], target, arguments)
            )
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(scratch).glob("database_*.json"):
            shutil.copyfile(file, folder / file.name)
    about = json.dumps(describe_records(found, target, command), indent=1)
    (folder / "about.json").write_text(about + "\n", encoding="utf-8")


def describe_records(found: list[Found], target: Target, command: str) -> dict[str, object]:
    """Collect what about.json says: command, device, target, TVM version, date and the gain of each record."""
    return {
        "command": command,
        "device": describe_processor(),
        "target": json.loads(str(target)),
        "apache_tvm": tvm.__version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "records": [
            {
                "name": item.task.name,
                "shapes": item.task.shapes,
                "calls_a_picture": item.task.calls,
                "rules_us": round(item.seconds_by_rules * 1e6, 1),
                "tuned_us": round(item.seconds * 1e6, 1),
            }
            for item in found
        ],
    }

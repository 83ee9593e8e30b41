"""The records in tuning_db/ are of the TVM and the target that this project pins."""

import json
from pathlib import Path

import pytest
import tvm
from tvm.s_tir import Schedule

from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.apply_tuning_records import open_database

SETS = sorted(folder for folder in (Path(__file__).parents[2] / "tuning_db").iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
def test_set_is_of_the_pinned_tvm_and_target(folder: Path) -> None:
    about = json.loads((folder / "about.json").read_text())
    assert about["apache_tvm"] == tvm.__version__
    wanted = TARGETS[folder.name].tvm_target
    assert {key: about["target"][key] for key in wanted} == wanted


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
def test_every_record_can_be_replayed(folder: Path) -> None:
    records = open_database(folder).get_all_tuning_records()
    assert len(records) == len(json.loads((folder / "about.json").read_text())["records"])
    for record in records:
        schedule = Schedule(record.workload.mod)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        assert "T.parallel" in schedule.mod.script()

import json
from pathlib import Path

import tvm
from tvm.target import Target

from mlc_controlnet.passes.schedule.apply_tuning_records import open_database
from mlc_controlnet.tuning.records import write_records
from mlc_controlnet.tuning.search import Found
from mlc_controlnet.tuning.tasks import Task, list_candidates
from tests.tuning.test_search import Product

LLVM = Target({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2})


def find(count: int) -> list[Found]:
    schedule = next(iter(list_candidates(Product["main"], LLVM)))
    return [Found(Task("product", Product["main"], 40), schedule, 2e-6, 1.5e-6)] * count


def test_set_says_where_it_is_from(tmp_path: Path) -> None:
    write_records(tmp_path, find(1), LLVM, "python -m mlc_controlnet tune --tasks 1")
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["command"] == "python -m mlc_controlnet tune --tasks 1"
    assert about["apache_tvm"] == tvm.__version__
    assert about["target"]["mcpu"] == "x86-64-v3"
    assert about["device"] and about["date"]
    assert about["records"] == [
        {
            "name": "product",
            "shapes": [[16, 8], [24, 8], [16, 24]],
            "calls_a_picture": 40,
            "rules_us": 2.0,
            "tuned_us": 1.5,
        }
    ]


def test_new_set_replaces_the_old_one(tmp_path: Path) -> None:
    write_records(tmp_path, find(1), LLVM, "tune")
    write_records(tmp_path, find(1), LLVM, "tune")
    assert len(open_database(tmp_path)) == 1
    write_records(tmp_path, [], LLVM, "tune")
    assert len(open_database(tmp_path)) == 0

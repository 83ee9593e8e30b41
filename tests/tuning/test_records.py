import json
from pathlib import Path

import pytest

from mlc_controlnet.bench.compilers.chips import W7900
from mlc_controlnet.passes.schedule.tuning_records import (
    ABOUT_FILE,
    MEASURED,
    PREDICTED,
    RECORDS_FILE,
    TuningRecords,
    read_file,
)
from mlc_controlnet.tuning.judge import Comparison
from mlc_controlnet.tuning.records import append_record, merge, merge_all, record_of, tvm_hash, write_about
from mlc_controlnet.tuning.report import report_lines
from tests.tuning.operations import RECORD, changed, made_up_tunable, make_linear, make_task

CEILINGS = {name: {"float32": 0.1, "float16": 0.2} for name in (W7900.name, W7900.title)}
SLOW = changed(seconds=1.8e-6, decisions={"rows": 2, "columns": 16})
ELSEWHERE = changed(device="Xeon", seconds=1.5e-6)


def test_a_record_has_the_hash_of_tvm_beside_ours(tmp_path: Path) -> None:
    task = make_task()
    compared = Comparison(RECORD.decisions, {"EPYC": 1e-6}, {"EPYC": 2e-6}, 120.0)
    record = record_of(task, compared, "EPYC", MEASURED)
    assert record.tvm_hash == tvm_hash(make_linear(16)["NT_matmul"]) and len(record.tvm_hash) == 16
    renamed = task.function.with_attr("global_symbol", "another_name")
    assert tvm_hash(renamed) == record.tvm_hash != tvm_hash(make_linear(24)["NT_matmul"])
    append_record(tmp_path, record)
    assert read_file(tmp_path / RECORDS_FILE) == ([record], [])


def test_only_our_own_hash_decides_whether_a_record_applies(tmp_path: Path) -> None:
    """Another release of TVM hashes otherwise, and older records have none of it."""
    append_record(tmp_path, changed(tvm="0.31.0", tvm_hash="0123456789abcdef"))
    tunable = made_up_tunable([{"rows": 1, "columns": 16}, RECORD.decisions])
    best = TuningRecords([tmp_path]).best(tunable)
    assert best is not None and best.decisions == RECORD.decisions
    fields = json.loads(RECORD.to_line())
    del fields["tvm_hash"]
    (tmp_path / RECORDS_FILE).write_text(json.dumps(fields) + "\n")
    assert read_file(tmp_path / RECORDS_FILE) == ([RECORD], [])


def test_about_says_where_records_are_from(tmp_path: Path) -> None:
    append_record(tmp_path / "v3", RECORD)
    write_about(tmp_path / "v3", "tune --tasks 1")
    write_about(tmp_path / "v3", "tune --tasks 2")
    about = json.loads((tmp_path / "v3" / "about.json").read_text())
    assert about["family"] == "v3"
    assert [run["command"] for run in about["runs"]] == ["tune --tasks 1", "tune --tasks 2"]
    assert all(run["date"] and run["apache_tvm"] for run in about["runs"])
    assert about["records"] == [
        {"operation": RECORD.operation.title, "before_us": 2.0, "after_us": 1.0, "from": "measured on EPYC"}
    ]


@pytest.mark.parametrize(
    "damaged",
    [b"\xff\x00", b"{", b"[]", b'{"runs": 7}', b"[" * 100_000],
    ids=["binary", "cut off", "a list", "no runs", "too deep"],
)
def test_an_about_that_cannot_be_read_is_written_anew(damaged: bytes, tmp_path: Path) -> None:
    append_record(tmp_path, RECORD)
    (tmp_path / ABOUT_FILE).write_bytes(damaged)
    write_about(tmp_path, "tune")
    about = json.loads((tmp_path / ABOUT_FILE).read_text())
    assert [run["command"] for run in about["runs"]] == ["tune"]


def test_merging_keeps_the_faster_of_each_device(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    append_record(ours / "llvm" / "v3", SLOW)
    append_record(theirs / "llvm" / "v3", RECORD)
    append_record(theirs / "llvm" / "v3", ELSEWHERE)
    write_about(theirs / "llvm" / "v3", "tune --runner rpc")
    with (theirs / "llvm" / "v3" / RECORDS_FILE).open("ab") as file:
        file.write(b'{"key": "cut o')
    lines = list(merge_all(theirs, ours, "tune --merge"))
    assert lines == ["llvm/v3: 2 records, 1 lines that are no records left out"]
    assert read_file(ours / "llvm" / "v3" / RECORDS_FILE) == ([RECORD, ELSEWHERE], [])
    about = json.loads((ours / "llvm" / "v3" / ABOUT_FILE).read_text())
    assert [run["command"] for run in about["runs"]] == ["tune --runner rpc", "tune --merge"]


def test_merging_keeps_what_other_families_have_records_of(tmp_path: Path) -> None:
    """Without it a bundle for all families would lose the decision that holds on all of them."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for family, device in (("rdna3", "navi31"), ("ada", "sm_89")):
        append_record(ours / "webgpu" / family, changed(how=PREDICTED, device=device, seconds=1.5e-6))
    better = changed(how=PREDICTED, device="navi31", decisions=SLOW.decisions, seconds=1e-6)
    append_record(theirs / "webgpu" / "rdna3", better)
    assert list(merge_all(theirs, ours, "")) == ["webgpu/rdna3: 2 records, 0 lines that are no records left out"]
    families = [ours / "webgpu" / family for family in ("rdna3", "ada")]
    tunable = made_up_tunable([RECORD.decisions, SLOW.decisions])
    both, one = (TuningRecords(of).best(tunable) for of in (families, families[:1]))
    assert both is not None and both.decisions == RECORD.decisions
    assert one is not None and one.decisions == SLOW.decisions


def test_merging_a_measurement_removes_the_prediction_of_its_device(tmp_path: Path) -> None:
    append_record(tmp_path / "a", changed(how=PREDICTED, seconds=1e-7))
    append_record(tmp_path / "b", SLOW)
    assert merge([tmp_path / "b"], tmp_path / "a") == (1, 0)
    assert read_file(tmp_path / "a" / RECORDS_FILE)[0] == [SLOW]


def test_the_report_shows_before_and_after_and_names_what_is_skipped(tmp_path: Path) -> None:
    append_record(tmp_path / "llvm" / "v3", RECORD)
    with (tmp_path / "llvm" / "v3" / RECORDS_FILE).open("ab") as file:
        file.write(b"\x80\n")
    append_record(tmp_path / "webgpu" / "rdna3", changed(how=PREDICTED, device="navi31"))
    lines = list(report_lines(tmp_path, CEILINGS))
    assert lines[0] == "llvm/v3: 1 records, 1 lines skipped"
    assert lines[1] == "  measured on EPYC: 0.500 of the rules' time, geometric mean of 1"
    assert lines[3].split()[:5] == ["2.0", "1.0", "0.500", "49", "-"]
    assert lines[4].startswith("  skipped ") and lines[4].endswith("records.jsonl:2: no text")
    assert lines[8].split()[4:6] == ["49", "%"]


@pytest.mark.parametrize(
    ("device", "share"),
    [
        ("amd rdna-3 (AMD Radeon Pro W7900 (RADV NAVI31)), shader-f16", "49"),
        ("amd rdna-3 (AMD Radeon Pro W7900), shader-f16", "49"),
        ("amd rdna-3 (AMD Radeon Pro W7900 Dual Slot), shader-f16", "-"),
        ("amd rdna-3, shader-f16", "-"),
    ],
)
def test_a_measured_gpu_has_its_share_of_the_ceiling_where_its_browser_names_it(
    device: str, share: str, tmp_path: Path
) -> None:
    append_record(tmp_path / "webgpu" / "rdna3", changed(device=device))
    assert list(report_lines(tmp_path, CEILINGS))[3].split()[4] == share

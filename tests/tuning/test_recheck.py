import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import MEASURED, PREDICTED, RECORDS_FILE, Record, read_file
from mlc_controlnet.tuning.judge import Comparison
from mlc_controlnet.tuning.recheck import recheck
from mlc_controlnet.tuning.records import append_record
from mlc_controlnet.tuning.tasks import Task
from tests.tuning.operations import changed, make_task

TASK = make_task()
DECISIONS = next(one for one in TASK.tunable.space() if one != TASK.tunable.chosen)
OURS = changed(operation=TASK.tunable.operation, decisions=DECISIONS)


class FakeJudge:
    """Compares with the given ratios in turn."""

    how, batch, finalists = MEASURED, 1, 1
    devices, families = ("EPYC",), {"EPYC": "v3"}

    def __init__(self, *ratios: float, problem: str = "") -> None:
        self.ratios, self.problem = list(ratios), problem

    def compare(self, _task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        ratio = self.ratios.pop(0)
        return [Comparison(one, {"EPYC": 4e-6 * ratio}, {"EPYC": 4e-6}, 99.0, self.problem) for one in finalists]


def recheck_all(folder: Path, records: Sequence[Record], judge: FakeJudge) -> tuple[list[Record], list[str]]:
    for record in records:
        append_record(folder / "v3", record)
    lines = list(recheck([TASK], judge, folder, "tune --recheck"))
    return read_file(folder / "v3" / RECORDS_FILE)[0], lines


def test_a_record_that_wins_both_times_stays_with_the_worse_figures(tmp_path: Path) -> None:
    (record,), lines = recheck_all(tmp_path, [OURS], FakeJudge(0.8, 0.9))
    assert (record.seconds, record.rules_seconds, record.decibels) == (pytest.approx(3.6e-6), 4e-6, 99.0)
    assert record.decisions == DECISIONS and record.tvm_hash
    assert lines[-1] == (
        "1 records measured again on EPYC, 0 taken out; the operations of all of them: 0.900 of the rules' time"
    )
    assert '"tune --recheck"' in (tmp_path / "v3" / "about.json").read_text()


@pytest.mark.parametrize("ratios", [(0.8, 0.99), (1.2, 0.7)])
def test_a_record_that_had_luck_is_taken_out(ratios: tuple[float, float], tmp_path: Path) -> None:
    records, lines = recheck_all(tmp_path, [OURS], FakeJudge(*ratios))
    assert not records and lines[0].startswith("taken out: matmul_cpu")


def test_a_record_that_computes_something_else_is_taken_out(tmp_path: Path) -> None:
    records, lines = recheck_all(tmp_path, [OURS], FakeJudge(0.5, 0.5, problem="20 dB"))
    assert not records and lines[0].endswith("no longer applies")


def test_a_decision_outside_of_the_space_is_taken_out_unmeasured(tmp_path: Path) -> None:
    odd = dataclasses.replace(OURS, decisions={"rows": 5, "columns": 16})
    assert recheck_all(tmp_path, [odd], FakeJudge())[0] == []


def test_what_the_rules_decide_by_now_is_taken_out_unmeasured(tmp_path: Path) -> None:
    records, lines = recheck_all(tmp_path, [dataclasses.replace(OURS, decisions=TASK.tunable.chosen)], FakeJudge())
    assert not records and lines[0].endswith("what the rules decide")


def test_what_the_judge_cannot_measure_stays(tmp_path: Path) -> None:
    """Another device's, and an operation that the model does not have; a line that is no record, too."""
    others = [dataclasses.replace(OURS, device="Xeon"), changed()]
    (tmp_path / "v3").mkdir()
    (tmp_path / "v3" / RECORDS_FILE).write_bytes(b"\xff\n")
    assert recheck_all(tmp_path, [*others, OURS], FakeJudge(1.0, 1.0))[0] == others
    assert (tmp_path / "v3" / RECORDS_FILE).read_bytes().startswith(b"\xff\n")


class FakePredictions:
    """Predicts for two chips, once for each record: the given ratios."""

    how, batch, finalists = PREDICTED, 1, 1
    devices, families = ("navi31", "sm_89"), {"navi31": "rdna3", "sm_89": "ada"}

    def __init__(self, *ratios: float) -> None:
        self.ratios = ratios

    def compare(self, _task: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        rules = dict.fromkeys(self.devices, 4e-6)
        times = {chip: 4e-6 * ratio for chip, ratio in zip(self.devices, self.ratios, strict=True)}
        return [Comparison(one, times, rules, 99.0) for one in finalists]


@pytest.mark.parametrize(
    ("ratios", "left"),
    [((0.9, 1.04), 1), ((0.97, 1.0), 0), ((0.7, 1.06), 0)],
    ids=["it wins on the mean", "the rules are as good by now", "it loses too much on one chip"],
)
def test_predictions_of_all_chips_stay_or_go_together(ratios: tuple[float, float], left: int, tmp_path: Path) -> None:
    for chip, family in FakePredictions.families.items():
        append_record(tmp_path / family, dataclasses.replace(OURS, device=chip, how=PREDICTED))
    lines = list(recheck([TASK], FakePredictions(*ratios), tmp_path, "tune --recheck"))
    for ratio, family in zip(ratios, FakePredictions.families.values(), strict=True):
        records, _ = read_file(tmp_path / family / RECORDS_FILE)
        assert [record.ratio for record in records] == [pytest.approx(ratio)] * left
        assert (tmp_path / family / "about.json").exists()
    assert lines[-1].startswith(f"2 records predicted again for navi31 and sm_89, {2 - 2 * left} taken out; ")

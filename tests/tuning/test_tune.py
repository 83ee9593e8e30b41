import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from tvm import tirx

from mlc_controlnet.kernels.tunable import Decisions, Operation
from mlc_controlnet.passes.schedule.tuning_records import ABOUT_FILE, MEASURED, RECORDS_FILE, TuningRecords, read_file
from mlc_controlnet.tuning.judge import Candidate, Comparison, Trial
from mlc_controlnet.tuning.tasks import Task
from mlc_controlnet.tuning.tune import TuneSettings, tune
from tests.tuning.operations import OPERATION, made_up_tunable

SPACE = [{"rows": rows} for rows in range(1, 31)]
FUNCTION = tirx.PrimFunc([], tirx.Evaluate(0))  # nobody schedules it


def task(name: str, seconds: float, calls: int = 1) -> Task:
    """A task whose rules take `seconds`; see FakeJudge for the rest."""
    operation = dataclasses.replace(OPERATION, params=(name,), axes=(int(1e9 * seconds),))
    return Task(FUNCTION, made_up_tunable(SPACE, operation), calls)


class FakeJudge:
    """30 rows are twice as fast as the rules' one, 20 are faster still and wrong, 10 do not compile."""

    how, batch, finalists = MEASURED, 4, 3

    def __init__(self, **families: str) -> None:
        self.families = families or {"EPYC": "v3"}
        self.devices = list(self.families)
        self.tried: list[tuple[Operation, Decisions]] = []

    def seconds(self, of: Task, decisions: Decisions) -> float:
        rows = decisions["rows"]
        return of.tunable.operation.axes[0] / 1e9 * (0.2 if rows == 20 else 1 - rows / 60)

    def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
        self.tried += [(of.tunable.operation, one) for of, one in candidates]
        return [
            Trial(one, {}, "no registers") if one["rows"] == 10 else Trial(one, {"EPYC": self.seconds(of, one)})
            for of, one in candidates
        ]

    def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        rules = {"EPYC": self.seconds(of, SPACE[0])}
        return [
            Comparison(one, {"EPYC": self.seconds(of, one)}, rules, 130.0, "20 dB" if one["rows"] == 20 else "")
            for one in finalists
        ]


@pytest.fixture
def settings(tmp_path: Path) -> TuneSettings:
    return TuneSettings(2, len(SPACE), math.inf, 0, tmp_path / "llvm", tmp_path / "trials.jsonl", "tune --tasks 2")


TASKS = [task("light", 1e-6), task("heavy", 1e-6, calls=40), task("middle", 2e-5)]


def test_the_heaviest_are_tuned_in_order_and_the_fastest_right_candidate_is_kept(settings: TuneSettings) -> None:
    lines = list(tune(TASKS, FakeJudge(), settings))
    records, skipped = read_file(settings.folder / "v3" / RECORDS_FILE)
    assert [record.operation.params for record in records] == [("heavy",), ("middle",)]
    assert {record.decisions["rows"] for record in records} == {30} and not skipped
    assert records[0].ratio == pytest.approx(0.5 / (1 - 1 / 60))
    assert lines[0] == "3 operations take 0.1 ms under the rules; tuning the heaviest 2, 98% of the time"
    assert lines[2].startswith("[2/2] matmul_cpu 20000 -> middle, 32.8% of the time: 0.508 of the rules' time")
    assert lines[2].endswith("the whole so far: 0.517")
    assert lines[-1].startswith("4 candidates discarded")
    assert '"command": "tune --tasks 2"' in (settings.folder / "v3" / "about.json").read_text()


def test_a_run_that_was_stopped_goes_on_where_it_was(settings: TuneSettings) -> None:
    class Stopped(FakeJudge):
        def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
            if len(self.tried) > 20:
                raise KeyboardInterrupt
            return super().judge(candidates)

    stopped, resumed, whole = Stopped(), FakeJudge(), FakeJudge()
    with pytest.raises(KeyboardInterrupt):
        list(tune(TASKS, stopped, settings))
    list(tune(TASKS, resumed, settings))
    list(tune(TASKS, whole, dataclasses.replace(settings, journal=settings.journal.with_name("other.jsonl"))))
    assert stopped.tried + resumed.tried == whole.tried
    again = FakeJudge()
    lines = list(tune(TASKS, again, settings))
    assert not again.tried
    assert lines[2].endswith("done before, 0.508 of the rules' time; the whole so far: 0.517")
    records, _ = read_file(settings.folder / "v3" / RECORDS_FILE)
    assert len(records) == 2, "what both runs found is there once"


def test_a_winner_is_recorded_again_where_its_record_is_missing(settings: TuneSettings) -> None:
    """Another --out, or records that were taken back: the trials are not made again."""
    list(tune(TASKS, FakeJudge(), settings))
    elsewhere, judge = dataclasses.replace(settings, folder=settings.folder / "other"), FakeJudge()
    lines = list(tune(TASKS, judge, elsewhere))
    assert not judge.tried and "done before" not in "".join(lines)
    ours, theirs = (read_file(one.folder / "v3" / RECORDS_FILE) for one in (settings, elsewhere))
    assert ours == theirs and len(ours[0]) == 2


def test_about_is_beside_the_records_of_a_run_that_was_stopped(settings: TuneSettings) -> None:
    class StoppedAtTheSecond(FakeJudge):
        def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
            if of.tunable.operation.params == ("middle",):
                raise KeyboardInterrupt
            return super().compare(of, finalists)

    with pytest.raises(KeyboardInterrupt):
        list(tune(TASKS, StoppedAtTheSecond(), settings))
    (record,), _ = read_file(settings.folder / "v3" / RECORDS_FILE)
    about = json.loads((settings.folder / "v3" / ABOUT_FILE).read_text())
    assert [one["operation"] for one in about["records"]] == [record.operation.title]


class TwoDevices(FakeJudge):
    """As FakeJudge; 30 rows are a little slower than the rules on the Xeon."""

    def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
        return [Trial(one, self.on_both(of, one)) for of, one in candidates]

    def on_both(self, of: Task, decisions: Decisions) -> dict[str, float]:
        rules = self.seconds(of, SPACE[0])
        return {"EPYC": self.seconds(of, decisions), "Xeon": rules * (1.03 if decisions["rows"] == 30 else 1)}

    def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
        rules = self.on_both(of, SPACE[0])
        problems = ["20 dB" if one["rows"] == 20 else "" for one in finalists]
        return [
            Comparison(one, self.on_both(of, one), rules, 130.0, problem)
            for one, problem in zip(finalists, problems, strict=True)
        ]


def test_a_winner_over_several_families_stands_in_each_with_its_figures_there(settings: TuneSettings) -> None:
    judge = TwoDevices(EPYC="v3", Xeon="v4")
    lines = list(tune(TASKS, judge, settings))
    assert "0.724 of the rules' time" in lines[1]
    folders = {device: settings.folder / family for device, family in judge.families.items()}
    records = {device: read_file(folder / RECORDS_FILE)[0] for device, folder in folders.items()}
    assert [(one.device, one.decisions) for of in records.values() for one in of] == [
        *[("EPYC", {"rows": 30})] * 2,
        *[("Xeon", {"rows": 30})] * 2,
    ]
    assert [of[0].ratio for of in records.values()] == pytest.approx([0.5 / (1 - 1 / 60), 1.03])
    tunable = made_up_tunable(SPACE, records["EPYC"][0].operation)
    both, first, second = (
        TuningRecords(of).best(tunable) for of in (folders.values(), *([one] for one in folders.values()))
    )
    assert (
        both is not None and both.source == "measured on EPYC and Xeon" and both.ratio == pytest.approx(0.724, abs=1e-3)
    )
    assert first is not None and first.source == "measured on EPYC"
    assert second is None, "alone, the Xeon keeps to the rules"


def test_what_other_families_have_records_of_is_compared_too(settings: TuneSettings) -> None:
    """Without its figure here a bundle for all families could not use it; where it loses, it does not."""
    list(tune(TASKS[1:2], FakeJudge(), settings))
    folders = [settings.folder / family for family in ("v3", "v4", "v5")]
    (winner,), _ = read_file(folders[0] / RECORDS_FILE)
    tunable = made_up_tunable(SPACE, winner.operation)

    class Xeon(FakeJudge):
        """Few rows are fast; 30 rows are as said."""

        def __init__(self, family: str, of_thirty: float) -> None:
            super().__init__(**{f"Xeon for {family}": family})
            self.of_thirty = of_thirty

        def ratio(self, decisions: Decisions) -> float:
            rows = decisions["rows"]
            return 0.5 if rows == 2 else self.of_thirty if rows == 30 else 1.0

        def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
            return [Trial(one, {device: self.ratio(one) for device in self.devices}) for _, one in candidates]

        def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
            """As the compilers' judge, which stops at the first right one."""
            times, rules = (dict.fromkeys(self.devices, ratio) for ratio in (self.ratio(finalists[0]), 1.0))
            return [Comparison(finalists[0], times, rules, 130.0)]

    list(tune(TASKS[1:2], Xeon("v4", 0.9), settings))
    records, _ = read_file(folders[1] / RECORDS_FILE)
    assert [(one.decisions["rows"], one.ratio) for one in records] == [(2, 0.5), (30, 0.9)]
    both = TuningRecords(folders).best(tunable)
    assert both is not None and both.decisions == {"rows": 30} and len(both.source.split(" and ")) == 2
    list(tune(TASKS[1:2], Xeon("v5", 1.2), settings))
    assert [one.ratio for one in read_file(folders[2] / RECORDS_FILE)[0]] == [0.5, 1.2]
    assert TuningRecords(folders).best(tunable) is None
    list(tune(TASKS[1:2], Xeon("v5", 1.2), dataclasses.replace(settings, trials=29)))
    list(tune(TASKS[1:2], Xeon("v5", 1.2), dataclasses.replace(settings, trials=31)))
    assert len(read_file(folders[2] / RECORDS_FILE)[0]) == 2, "nothing is recorded twice"


def test_the_time_limit_ends_a_run_and_loses_nothing(settings: TuneSettings) -> None:
    lines = list(tune(TASKS, FakeJudge(), dataclasses.replace(settings, seconds=-1.0)))
    assert lines[0] == "the time limit has passed: the same command goes on from here"
    assert not settings.journal.exists()


def test_a_loss_on_one_device_is_no_win(settings: TuneSettings) -> None:
    class SlowerOnTheXeon(FakeJudge):
        def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
            return [Trial(one, {"EPYC": self.seconds(of, one), "Xeon": 1e-6 * one["rows"]}) for of, one in candidates]

        def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
            rules, *times = (trial.seconds for trial in self.judge([(of, one) for one in (SPACE[0], *finalists)]))
            return [Comparison(one, seconds, rules, 130.0) for one, seconds in zip(finalists, times, strict=True)]

    lines = list(tune(TASKS[:1], SlowerOnTheXeon(EPYC="v3", Xeon="v4"), settings))
    assert "the rules are as good" in lines[1]
    assert not settings.folder.exists()


def test_a_full_disk_keeps_what_was_written(settings: TuneSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    list(tune(TASKS, FakeJudge(), dataclasses.replace(settings, tasks=1)))
    before = settings.journal.read_bytes()

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        list(tune(TASKS, FakeJudge(), settings))
    assert settings.journal.read_bytes() == before

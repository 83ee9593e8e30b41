import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable
from mlc_controlnet.passes.schedule.tuning_records import MEASURED, RECORDS_FILE, read_file
from mlc_controlnet.tuning.judge import Candidate, Comparison, Trial
from mlc_controlnet.tuning.tasks import Task
from mlc_controlnet.tuning.tune import TuneSettings, tune
from tests.tuning.operations import OPERATION

SPACE = [{"rows": rows} for rows in range(1, 31)]


def task(name: str, seconds: float, calls: int = 1) -> Task:
    """A task whose rules take `seconds`; see FakeJudge for the rest."""
    operation = dataclasses.replace(OPERATION, params=(name,), axes=(int(1e9 * seconds),))
    tunable = Tunable(operation, SPACE[0], lambda: list(SPACE), lambda _: None, 1)  # type: ignore[arg-type, return-value]
    return Task(None, tunable, calls)  # type: ignore[arg-type]


class FakeJudge:
    """30 rows are twice as fast as the rules' one, 20 are faster still and wrong, 10 do not compile."""

    how, batch = MEASURED, 4

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
    assert "done before" in "".join(tune(TASKS, again, settings)) and not again.tried
    records, _ = read_file(settings.folder / "v3" / RECORDS_FILE)
    assert len(records) == 4, "two of each run, and none of the last"


def test_the_time_limit_ends_a_run_and_loses_nothing(settings: TuneSettings) -> None:
    lines = list(tune(TASKS, FakeJudge(), dataclasses.replace(settings, seconds=-1.0)))
    assert lines[0] == "the time limit has passed: the same command goes on from here"
    assert not settings.journal.exists()


def test_a_loss_on_one_device_is_no_win(settings: TuneSettings) -> None:
    class TwoDevices(FakeJudge):
        def judge(self, candidates: Sequence[Candidate]) -> list[Trial]:
            return [Trial(one, {"EPYC": self.seconds(of, one), "Xeon": 1e-6 * one["rows"]}) for of, one in candidates]

        def compare(self, of: Task, finalists: Sequence[Decisions]) -> list[Comparison]:
            rules, *times = (trial.seconds for trial in self.judge([(of, one) for one in (SPACE[0], *finalists)]))
            return [Comparison(one, seconds, rules, 130.0) for one, seconds in zip(finalists, times, strict=True)]

    lines = list(tune(TASKS[:1], TwoDevices(EPYC="v3", Xeon="v4"), settings))
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

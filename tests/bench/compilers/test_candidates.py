"""A search's candidates, judged by AMD's compiler; skipped where Mesa is missing."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from mlc_controlnet.bench.compilers import candidates
from mlc_controlnet.bench.compilers.amd import mesa_version
from mlc_controlnet.bench.compilers.candidates import FAMILIES, CompilerJudge
from mlc_controlnet.bench.compilers.chips import CHIPS, W7900
from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning.judge import Trial
from mlc_controlnet.tuning.reference import Reference
from mlc_controlnet.tuning.tasks import Task
from tests.bench.compilers.made_up_judgements import kernel
from tests.tuning.operations import WEBGPU, make_linear, make_tunable


@pytest.fixture(scope="module")
def task() -> Task:
    function = make_linear(64, columns=128)["NT_matmul"]
    return Task(function, make_tunable(function, WEBGPU), 1)


@pytest.fixture(autouse=True, scope="module")
def _mesa() -> None:
    try:
        mesa_version(W7900)
    except UserError as error:
        pytest.skip(str(error))


def test_every_chip_has_a_family() -> None:
    assert set(FAMILIES) == set(CHIPS)


@pytest.mark.parametrize(
    "changes,reason",
    [
        ({}, ""),
        ({"spilled": 3}, "navi31: spills 3 registers"),
        ({"occupancy": 7}, "navi31: room for 7 waves a SIMD, the rules' choice has 12"),
        ({"occupancy": 8}, ""),  # enough to hide latency
        ({"workgroups": 48}, "navi31: 48 waves in all, the rules' choice has 96"),
    ],
)
def test_a_candidate_that_would_wait_is_refused(changes: dict[str, int], reason: str) -> None:
    rules = kernel("rules", 10.0)
    assert candidates._waits(dataclasses.replace(rules, **changes), rules, W7900) == reason


def test_times_are_predicted_for_each_chip_and_a_winner_is_run_on_a_software_adapter(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = CompilerJudge([W7900])
    rules, impossible = task.tunable.chosen, dict(task.tunable.chosen) | {"threads_y": 64}
    first, refused = judge.judge([(task, rules), (task, impossible)])
    assert not first.problem and 0 < first.seconds["navi31"] < 1e-3
    assert not refused.seconds and refused.problem
    (compared,) = judge.compare(task, [rules])
    assert not compared.problem and compared.decibels > 100 and compared.seconds == compared.rules_seconds

    def wrong(_function: object, _wgsl: str, _facts: object, arguments: Sequence[np.ndarray]) -> np.ndarray:
        return np.ones_like(arguments[-1])

    monkeypatch.setattr(candidates, "run_on_adapter", wrong)
    (compared,) = judge.compare(task, [rules])
    assert compared.problem.startswith("differs from the reference")


def test_a_finalist_that_loses_on_one_chip_does_not_stand_in_the_way_of_others(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search went by AMD's chips alone, and its fastest may lose on NVIDIA's."""
    judge = CompilerJudge([W7900])
    rules, *others = task.tunable.space()[:4]
    times = [(1.0, 1.0), (0.5, 1.2), (0.8, 0.9), (0.6, 1.0)]
    trials = [
        Trial(one, {"navi31": amd, "sm_89": nvidia}) for one, (amd, nvidia) in zip((rules, *others), times, strict=True)
    ]
    monkeypatch.setattr(judge, "_trials", lambda _candidates, _chips: trials)
    outputs = iter([np.zeros, np.ones])
    reference = Reference((np.zeros(4, "float32"),), np.ones(4, "float32"), "float32")
    monkeypatch.setattr(candidates, "make_reference", lambda _function, _target: reference)
    monkeypatch.setattr(candidates, "run_on_adapter", lambda *_: next(outputs)(4))
    compared = judge.compare(task, others)
    assert [(one.decisions, bool(one.problem)) for one in compared] == [(others[2], True), (others[1], False)]


def test_finalists_that_do_not_win_are_not_run_but_for_the_best(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another family has a record of needs its figures, also where it loses."""
    judge = CompilerJudge([W7900])
    rules, *others = task.tunable.space()[:3]
    trials = [Trial(one, {"navi31": ratio}) for one, ratio in zip((rules, *others), (1.0, 1.2, 0.99), strict=True)]
    monkeypatch.setattr(judge, "_trials", lambda _candidates, _chips: trials)
    run: list[object] = []
    monkeypatch.setattr(candidates, "run_on_adapter", lambda *_: run.append(1) or np.zeros((64, 128), "float32"))
    compared = judge.compare(task, others)
    assert [one.decisions for one in compared] == [others[1]] and len(run) == 1

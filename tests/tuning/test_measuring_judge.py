from collections.abc import Iterable, Iterator

import pytest
import tvm
from tvm import relax

from mlc_controlnet.tuning import processor
from mlc_controlnet.tuning.measuring_judge import MeasuringJudge
from mlc_controlnet.tuning.processor import ProcessorRunner
from mlc_controlnet.tuning.runner import Job, Measured
from mlc_controlnet.tuning.tasks import Task
from tests.tuning.operations import LLVM, lower, make_task, make_tunable


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> MeasuringJudge:
    monkeypatch.setattr(processor, "MIN_REPEAT_MS", 1)
    return MeasuringJudge(ProcessorRunner(LLVM, "v3"))


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task()


def test_right_candidates_have_times_and_are_compared_with_the_rules(judge: MeasuringJudge, task: Task) -> None:
    device = judge.runner.device
    assert judge.families == {device: "v3"}
    other = next(one for one in task.tunable.space() if one != task.tunable.chosen)
    (trial,) = judge.judge([(task, other)])
    assert not trial.problem and 0 < trial.seconds[device] < 1
    (compared,) = judge.compare(task, [other])
    assert not compared.problem and compared.decibels > 100
    assert compared.seconds[device] > 0 and compared.rules_seconds[device] > 0


def test_a_wrong_candidate_and_one_that_tvm_refuses_have_no_time(judge: MeasuringJudge, task: Task) -> None:
    wrong = Task(task.function, make_tunable(make_scaled()), 40)
    refused = {"rows": 0, "columns": 16}
    candidates = [(wrong, wrong.tunable.chosen), (task, refused), (task, task.tunable.chosen)]
    differs, cannot, right = judge.judge(candidates)
    assert not differs.seconds and differs.problem.startswith("differs from the reference")
    assert not cannot.seconds and cannot.problem.startswith("TVM refuses it")
    assert right.seconds and not right.problem


def test_a_trial_is_known_before_the_next_job_is_run(task: Task) -> None:
    """So it is in the journal if the next one ends the search."""

    class LastDevice:
        device, family, batch = "tab", "rdna3", 2

        def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
            yield Measured((next(iter(jobs)).arguments[-1],), ((1e-3,),))
            raise ConnectionError("no tab is left")

    trials = MeasuringJudge(LastDevice()).judge([(task, one) for one in task.tunable.space()[:2]])
    assert next(trials).problem == "differs from the reference: 0 dB, wanted 80"
    with pytest.raises(ConnectionError):
        next(trials)


def test_a_device_that_refuses_the_finalists_gives_no_winner(task: Task) -> None:
    class Refusing:
        device, family, batch = "tab", "rdna3", 2

        def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
            return (Measured(problem="no float16") for _ in jobs)

    (compared,) = MeasuringJudge(Refusing()).compare(task, task.tunable.space()[:1])
    assert compared.problem == "no float16" and not compared.seconds


def make_scaled() -> tvm.tirx.PrimFunc:
    """make_linear(16) with an output that is too large by a tenth: what a wrong schedule might compute."""
    builder = relax.BlockBuilder()
    x, weight = (relax.Var(name, relax.TensorType((rows, 32), "float32")) for name, rows in (("x", 16), ("w", 48)))
    with builder.function("main", [x, weight]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(weight))))
            y = builder.emit_output(relax.op.multiply(y, relax.const(1.1, "float32")))
        builder.emit_func_output(y)
    (function,) = (f for _, f in lower(builder).functions_items() if isinstance(f, tvm.tirx.PrimFunc))
    return function

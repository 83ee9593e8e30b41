import pytest
import tvm
from tvm import relax

from mlc_controlnet.kernels.tunable_kernels import tunable_of
from mlc_controlnet.tuning import processor
from mlc_controlnet.tuning.processor import ProcessorJudge, Stopwatch
from mlc_controlnet.tuning.tasks import Task
from tests.tuning.operations import LLVM, lower, make_linear


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(processor, "MIN_REPEAT_MS", 1)
    function = make_linear(16)["NT_matmul"]
    tunable = tunable_of(function, LLVM)
    assert tunable is not None
    return Task(function, tunable, 40)


def test_a_hundred_times_the_work_takes_longer() -> None:
    def seconds(rows: int) -> float:
        function = make_linear(rows)["NT_matmul"]
        tunable = tunable_of(function, LLVM)
        assert tunable is not None
        arguments = processor.make_reference(function, LLVM).arguments
        return Stopwatch(tunable.schedule(tunable.chosen), LLVM, arguments).seconds()

    assert 0 < seconds(16) < seconds(1600) < 1


def test_right_candidates_have_times_and_are_compared_with_the_rules(task: Task) -> None:
    judge = ProcessorJudge(LLVM, "v3")
    other = next(one for one in task.tunable.space() if one != task.tunable.chosen)
    (trial,) = judge.judge([(task, other)])
    assert not trial.problem and 0 < trial.seconds[judge.device] < 1
    (compared,) = judge.compare(task, [other])
    assert not compared.problem and compared.decibels > 100
    assert compared.seconds[judge.device] > 0 and compared.rules_seconds[judge.device] > 0


def test_a_wrong_candidate_and_one_that_tvm_refuses_have_no_time(task: Task) -> None:
    judge = ProcessorJudge(LLVM, "v3")
    wrong = Task(task.function, tunable_of(make_scaled(), LLVM), 40)  # type: ignore[arg-type]
    (trial,) = judge.judge([(wrong, wrong.tunable.chosen)])
    assert not trial.seconds and trial.problem.startswith("differs from the reference")
    (refused,) = judge.judge([(task, {"rows": 0, "columns": 16})])
    assert not refused.seconds and refused.problem.startswith("TVM refuses it")


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

import numpy as np
import pytest

from mlc_controlnet.tuning import processor
from mlc_controlnet.tuning.processor import ProcessorRunner, load_kernel
from mlc_controlnet.tuning.reference import make_reference
from mlc_controlnet.tuning.runner import Job
from tests.tuning.operations import LLVM, make_linear, make_task, make_tunable


def test_a_hundred_times_the_work_takes_longer() -> None:
    def seconds(rows: int) -> float:
        function = make_linear(rows)["NT_matmul"]
        tunable = make_tunable(function)
        job = Job((tunable.schedule(tunable.chosen),), make_reference(function, LLVM).arguments)
        (measured,) = ProcessorRunner(LLVM, "v3").run([job])
        return measured.rounds[0][0]

    assert 0 < seconds(16) < seconds(1600) < 1


def test_a_candidate_is_timed_as_the_code_that_a_build_loads() -> None:
    """What TVM compiles in memory is other code."""
    tunable = make_tunable(make_linear(16)["NT_matmul"])
    assert load_kernel(tunable.schedule(tunable.chosen), LLVM).kind == "library"


def test_kernels_of_a_job_take_turns_and_all_outputs_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "MIN_REPEAT_MS", 1)
    task = make_task()
    kernels = tuple(task.tunable.schedule(one) for one in (task.tunable.chosen, *task.tunable.space()[:1]))
    x, weight, output = make_reference(task.function, LLVM).arguments
    (measured,) = ProcessorRunner(LLVM, "v3").run([Job(kernels, (x, weight, output), rounds=3)])
    assert [len(times) for times in measured.rounds] == [2, 2, 2] and not measured.problem
    assert all(0 < seconds < 1 for times in measured.rounds for seconds in times)
    for found in measured.outputs:
        np.testing.assert_allclose(found, x @ weight.T, rtol=1e-4, atol=1e-5)
    assert not output.any()

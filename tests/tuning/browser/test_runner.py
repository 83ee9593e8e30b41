import time
from collections.abc import Iterator

import numpy as np
import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning.browser.adapter import Adapter, read_adapter
from mlc_controlnet.tuning.browser.runner import Admission, BrowserRunner
from mlc_controlnet.tuning.browser.server import TabServer
from mlc_controlnet.tuning.runner import Job
from tests.tuning.browser.stub_tab import ADAPTER, StubTab
from tests.tuning.operations import WEBGPU, make_linear, make_tunable


def adapter(**changed: object) -> Adapter:
    return read_adapter({**ADAPTER, **changed})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"vendor": ""}, "this browser does not tell what its GPU is"),
        ({"is_software": True}, "a processor in disguise"),
        ({"features": []}, "has no shader-f16: tune with --dtype float32"),
    ],
)
def test_an_adapter_joins_if_its_times_would_mean_something(changed: dict[str, object], reason: str) -> None:
    refusal = Admission("float16", takes_software=False).refusal(adapter(**changed))
    assert reason in refusal and bool(reason) == bool(refusal)


def test_the_first_adapter_decides_for_the_run() -> None:
    admission = Admission("float32", takes_software=True)
    assert admission.refusal(adapter(vendor="")) and admission.adapter is None
    assert not admission.refusal(adapter())
    assert not admission.refusal(adapter())
    assert "this run measures nvidia lovelace" in admission.refusal(adapter(architecture="ampere"))


@pytest.fixture
def served() -> Iterator[tuple[TabServer, Admission]]:
    admission = Admission("float32", takes_software=False)
    with TabServer(admission.refusal) as server:
        yield server, admission


def test_nobody_who_comes_in_time_is_one_message_with_the_address(served: tuple[TabServer, Admission]) -> None:
    server, admission = served
    with pytest.raises(UserError, match=f"no tab that measures until it was over, wanted one; open {server.address}"):
        BrowserRunner(server, admission, print, time.monotonic() + 0.1)


def test_what_is_no_answer_is_a_problem_of_its_job_alone(served: tuple[TabServer, Admission]) -> None:
    """The stub answers with something else."""
    server, admission = served
    StubTab(server.address)
    runner = BrowserRunner(server, admission, print, float("inf"))
    assert (runner.device, runner.family) == (adapter().name, "ada")
    function = make_linear(64, columns=128)["NT_matmul"]
    tunable = make_tunable(function, WEBGPU)
    job = Job((tunable.schedule(tunable.chosen),), (*(np.zeros(1, np.float32),) * 2, np.zeros((64, 128), np.float32)))
    assert [one.problem[:24] for one in runner.run([job, job])] == ["a tab gave answer: got n"] * 2
    assert not runner.parts()

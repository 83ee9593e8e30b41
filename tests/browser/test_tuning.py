"""`tune --runner browser` with the real Chromium: its software adapter measures a tiny convolution and a product."""

import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tvm.tirx import PrimFunc

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import MEASURED, RECORDS_FILE, read_file
from mlc_controlnet.tuning.browser import runner as browser_runner
from mlc_controlnet.tuning.browser.runner import Admission, BrowserRunner
from mlc_controlnet.tuning.browser.server import TabServer
from mlc_controlnet.tuning.measuring_judge import MeasuringJudge
from mlc_controlnet.tuning.records import append_record, record_of
from mlc_controlnet.tuning.shader import Shader, compile_shader
from mlc_controlnet.tuning.tasks import Task
from tests.tuning.operations import WEBGPU, make_convolution, make_linear, make_tunable


class Chromium:
    """Tabs of one browser; see join_search.mjs."""

    def __init__(self, address: str) -> None:
        command = ["node", str(Path(__file__).parent / "join_search.mjs"), address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, action: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{action}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def quit(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    functions = [make_convolution(), make_linear(64, columns=128)["NT_matmul"]]
    return [Task(function, make_tunable(function, WEBGPU), 1) for function in functions]


@pytest.fixture(scope="module")
def admission() -> Admission:
    return Admission("float32", takes_software=True)


@pytest.fixture(scope="module")
def server(admission: Admission) -> Iterator[TabServer]:
    with TabServer(admission.refusal) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(server: TabServer) -> Iterator[Chromium]:
    browser = Chromium(server.address)
    browser.do("open")
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def runner(server: TabServer, admission: Admission, chromium: Chromium) -> BrowserRunner:
    return BrowserRunner(server, admission, print, float("inf"))


@pytest.fixture(scope="module")
def judge(runner: BrowserRunner) -> MeasuringJudge:
    return MeasuringJudge(runner)


def some(task: Task, count: int) -> list[Decisions]:
    """The rules' choice and others that are far apart."""
    space = task.tunable.space()
    return [task.tunable.chosen, *space[:: max(1, len(space) // count)][: count - 1]]


def test_candidates_are_checked_and_timed_on_the_adapter_that_joined(
    runner: BrowserRunner, judge: MeasuringJudge, tasks: list[Task]
) -> None:
    (device,) = judge.devices
    assert judge.families == {device: "google-swiftshader"} and "timestamp-query" in device
    for task in tasks:
        trials = list(judge.judge([(task, one) for one in some(task, 3)]))
        assert [trial.problem for trial in trials] == [""] * 3
        assert all(1e-7 < trial.seconds[device] < 1 for trial in trials)
    assert "(medians of 6): building" in runner.parts()


def test_a_winner_is_compared_with_the_rules_and_the_reference_and_is_a_measured_record(
    judge: MeasuringJudge, tasks: list[Task], tmp_path: Path
) -> None:
    (device,) = judge.devices
    (compared,) = judge.compare(tasks[0], some(tasks[0], 2)[1:])
    assert not compared.problem and compared.decibels > 100
    append_record(tmp_path, record_of(tasks[0], compared, device, judge.how))
    ((record,), skipped) = read_file(tmp_path / RECORDS_FILE)
    assert (record.how, record.device, skipped) == (MEASURED, device, [])


def test_wrong_kernels_are_told_from_right_ones(
    judge: MeasuringJudge, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that adds 1, one that writes nothing over what the right one wrote before, and one that is no WGSL."""
    zero, bound = "vec4<f32>(0.000000e+00f)", "> podArgs.packGridDimX"
    faults = iter([(zero, "vec4<f32>(1.0f)"), (bound, f"{bound} || true"), ("fn candidate", "fun candidate")])

    def spoil(kernel: PrimFunc, target: object) -> Shader:
        right = compile_shader(kernel, WEBGPU)
        before, after = next(faults)
        assert before in right.wgsl
        return dataclasses.replace(right, wgsl=right.wgsl.replace(before, after))

    assert not next(judge.judge([(tasks[1], tasks[1].tunable.chosen)])).problem
    monkeypatch.setattr(browser_runner, "compile_shader", spoil)
    trials = list(judge.judge([(tasks[1], tasks[1].tunable.chosen)] * 3))
    assert not any(trial.seconds for trial in trials)
    different, unwritten, refused = (trial.problem for trial in trials)
    assert different.startswith("differs from the reference: ")
    assert "8192 elements of its output are no finite numbers, or not written" in unwritten
    assert "fun" in refused


def test_a_lost_device_is_opened_again_and_a_waiting_tab_follows_one_that_is_closed(
    judge: MeasuringJudge, tasks: list[Task], chromium: Chromium
) -> None:
    candidate = (tasks[1], tasks[1].tunable.chosen)
    chromium.do("lose")
    assert not next(judge.judge([candidate])).problem
    chromium.do("open")
    first, second = chromium.do("tell")["pages"]
    assert first["count"] > 0 and first["status"].startswith("Waiting for candidates, on ")
    assert second == {
        "count": 0,
        "status": "Another tab of this browser measures; this one waits for its turn.",
        "button": "Stop",
    }
    chromium.do("close")
    assert not next(judge.judge([candidate])).problem
    while not chromium.do("tell")["pages"][0]["count"]:  # the page counts when the server has thanked it
        time.sleep(0.05)
    chromium.do("stop")
    told = chromium.do("tell")
    assert told["pages"] == [{"count": 1, "status": "Stopped.", "button": "Measure again"}]
    assert not told["complaints"], (
        "the page asks for nothing that is not its own, and its policy forbids nothing it does"
    )

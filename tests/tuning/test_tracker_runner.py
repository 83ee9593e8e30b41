"""TVM's RPC tracker with servers on this machine."""

import dataclasses
import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tvm.script import tirx as T

from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import best_of_host
from mlc_controlnet.machine import name_with_cores, processor_name
from mlc_controlnet.tuning import processor, remote_processor, tracker_runner
from mlc_controlnet.tuning.journal import Journal
from mlc_controlnet.tuning.measuring_judge import MeasuringJudge
from mlc_controlnet.tuning.reference import make_reference
from mlc_controlnet.tuning.runner import Job
from mlc_controlnet.tuning.tasks import Task
from mlc_controlnet.tuning.tracker import Place, Tracker
from mlc_controlnet.tuning.tracker_runner import TrackerRunner
from mlc_controlnet.tuning.tune import TuneSettings, tune
from tests.tuning.operations import LLVM, make_task
from tests.tuning.rpc_processes import HOST, Process, Starter, starter

KEYS = (f"kind{number}" for number in itertools.count())  # a test's servers are its own


@pytest.fixture(scope="module")
def processes() -> Iterator[Starter]:
    with starter() as started:
        yield started


@pytest.fixture(scope="module")
def tracker_process(processes: Starter) -> Process:
    return processes.tracker()


@pytest.fixture
def tracker(tracker_process: Process, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setattr(processor, "MIN_REPEAT_MS", 1)
    return Tracker(HOST, tracker_process.port, next(KEYS), patience=10)


@pytest.fixture
def servers(processes: Starter, tracker_process: Process, tracker: Tracker) -> Iterator[dict[str, Process]]:
    """Two servers by their addresses."""
    started = [processes.server(tracker_process, tracker.key) for _ in range(2)]
    yield {f"{HOST}:{server.port}": server for server in started}
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task()


@pytest.fixture(scope="module")
def job(task: Task) -> Job:
    return Job((task.tunable.schedule(task.tunable.chosen),), make_reference(task.function, LLVM).arguments)


def watch(monkeypatch: pytest.MonkeyPatch, seen: Callable[[str], None]) -> None:
    """Call `seen` with the address of each server that is about to measure."""
    places: dict[int, str] = {}
    connect, measure = tracker_runner._connect, tracker_runner.measure_on_server

    def connect_and_note(place: Place, seconds: int):
        session = connect(place, seconds)
        places[id(session)] = place.address
        return session

    def tell(session, libraries, job):
        seen(places[id(session)])
        return measure(session, libraries, job)

    monkeypatch.setattr(tracker_runner, "_connect", connect_and_note)
    monkeypatch.setattr(tracker_runner, "measure_on_server", tell)


def test_both_servers_measure_and_the_judge_checks_what_they_computed(
    tracker: Tracker, servers: dict[str, Process], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: Counter[str] = Counter()
    watch(monkeypatch, lambda address: measured.update([address]))
    judge = MeasuringJudge(TrackerRunner(tracker))
    (device,) = judge.devices
    assert device == name_with_cores(processor_name(), 1)  # its servers have one thread
    assert judge.families == {device: best_of_host()}
    space = task.tunable.space()[:6]
    trials = list(judge.judge([(task, one) for one in space]))
    assert [trial.decisions for trial in trials] == space
    assert all(not trial.problem and 0 < trial.seconds[device] < 1 for trial in trials)
    assert set(measured) == set(servers) and measured.total() == 6
    (compared,) = judge.compare(task, space[:1])
    assert not compared.problem and compared.decibels > 100


def test_a_server_that_is_killed_in_the_middle_loses_no_trial_and_the_search_finishes(
    tracker: Tracker, servers: dict[str, Process], task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[str] = []

    def kill_the_third(address: str) -> None:
        measured.append(address)
        if len(measured) == 3:
            servers[address].kill()

    watch(monkeypatch, kill_the_third)
    judge = MeasuringJudge(TrackerRunner(tracker))
    settings = TuneSettings(1, 8, math.inf, 0, tmp_path / "llvm", tmp_path / "trials.jsonl", "tune --runner rpc")
    *_, outcome, discarded = tune([task], judge, settings)
    journal = Journal(settings.journal, judge.devices)
    trials = journal.trials_of(task.key)
    assert len(trials) == journal.finished(task.key)[0] == 8
    assert all(not trial.problem and 0 < trial.seconds[judge.runner.device] < 1 for trial in trials)
    assert outcome.startswith("[1/1]") and discarded.startswith("0 candidates discarded")
    assert measured[2] not in measured[3:]
    assert tracker.count() == 1


def test_a_kernel_that_ends_its_servers_is_discarded(
    tracker: Tracker, servers: dict[str, Process], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_runner, "ATTEMPTS", 2)
    (result,) = TrackerRunner(tracker).run([Job((abort,), job.arguments)])
    assert result.problem == "2 servers ended while they measured it" and not result.rounds


def test_a_server_that_refuses_a_kernel_goes_on(tracker: Tracker, servers: dict[str, Process], job: Job) -> None:
    other = Job(job.kernels, (job.arguments[0].astype("float16"), *job.arguments[1:]))
    refused, right = TrackerRunner(tracker).run([other, job])
    assert refused.problem.startswith("the server refuses it: Mismatched x.dtype on argument #0")
    assert not right.problem and tracker.count() == 2


def test_a_server_that_says_nothing_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_runner, "GRACE_SECONDS", 0.1)
    answers = threading.Event()
    assert tracker_runner._within(0, answers.wait) is None
    answers.set()
    assert tracker_runner._within(0, answers.wait) is True


def test_a_search_that_is_interrupted_waits_for_what_its_servers_do(
    tracker: Tracker, servers: dict[str, Process], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    watch(monkeypatch, lambda address: goes_on.wait(10))
    runner = TrackerRunner(tracker)
    started: list[Future] = []
    start = runner._start
    monkeypatch.setattr(runner, "_start", lambda job: started.append(start(job)) or started[-1])

    def jobs() -> Iterator[Job]:
        yield job
        threading.Timer(0.2, goes_on.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(runner.run(jobs()))
    assert started[0].done() and not started[0].result().problem


def test_a_server_with_another_processor_ends_the_search(
    tracker: Tracker, servers: dict[str, Process], job: Job
) -> None:
    runner = TrackerRunner(tracker)
    runner._alike.clear()
    runner._first = dataclasses.replace(runner._first, device="AMD EPYC 7B13, 2 cores")
    runner.device = runner._first.device
    with pytest.raises(UserError, match=r"server 127.*wanted AMD EPYC 7B13, 2 cores, as .*; end it, or give it a key"):
        list(runner.run([job]))


def test_a_server_that_no_kernel_can_be_compiled_for_is_told(
    tracker: Tracker, servers: dict[str, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_processor, "host_instruction_sets", lambda file, machine: ())
    with pytest.raises(UserError, match=r"server 127.*x86_64.*wanted Linux on one of x86-64-v4, x86-64-v3, aarch64"):
        TrackerRunner(tracker)


def test_a_key_without_servers_is_told_with_the_command_that_starts_one(tracker: Tracker) -> None:
    impatient = dataclasses.replace(tracker, patience=0)
    command = f"python -m tvm.exec.rpc_server --tracker {HOST}:{tracker.port} --key {tracker.key}"
    with pytest.raises(UserError) as caught:
        TrackerRunner(impatient)
    assert str(caught.value) == (
        f"--tracker {HOST}:{tracker.port}: got no server of the key {tracker.key} in 0 s, wanted one or more; "
        f"start one: {command}"
    )


@T.prim_func(s_tir=True, private=True)
def abort(
    x: T.Buffer((16, 32), "float32"), weight: T.Buffer((48, 32), "float32"), y: T.Buffer((16, 48), "float32")
) -> None:
    T.evaluate(T.call_extern("int32", "abort"))

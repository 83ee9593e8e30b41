"""Measures candidates on the GPU of whoever opens a page: `tune --runner browser`.

A run measures one adapter, that of its first tab; more tabs with such an adapter share the work. While tabs measure,
this process compiles what comes next.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import numpy as np
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning.browser.adapter import Adapter
from mlc_controlnet.tuning.browser.board import Abandoned, Answer
from mlc_controlnet.tuning.browser.server import TabServer
from mlc_controlnet.tuning.browser.work import (
    NoAnswer,
    WorkAnswer,
    describe_work,
    output_of,
    problem_of,
    read_answer,
)
from mlc_controlnet.tuning.runner import Job, Measured, refusal
from mlc_controlnet.tuning.shader import compile_shader

SAMPLES = 5  # of a kernel that is alone in its job and timed once; their median is its time
SAMPLES_MS, ROUND_MS = 500.0, 1000.0  # no new sample of a single time, or of a round, begins after it
LOOK_SECONDS = 0.5
REMIND_SECONDS = 30.0  # that nobody measures


class Admission:
    """Decides which tabs may join: those with the first tab's adapter, if it can do what the run needs."""

    def __init__(self, dtype: str, takes_software: bool) -> None:
        """takes_software: also let a software adapter in."""
        self.dtype = dtype
        self.takes_software = takes_software
        self.adapter: Adapter | None = None

    def refusal(self, adapter: Adapter) -> str:
        """Say why a tab with that adapter may not join; empty if it may. The first that may decides for the others."""
        if self.adapter is not None:
            measures = f"this run measures {self.adapter.name}, and this is {adapter.name}"
            return "" if adapter.name == self.adapter.name else f"{measures}: start another run for it"
        if not adapter.family:
            return "this browser does not tell what its GPU is: open the page in Chrome, Edge or Safari"
        if adapter.is_software and not self.takes_software:
            return (
                f"{adapter.name} is a processor in disguise, whose times say nothing of GPUs: switch on hardware "
                "acceleration, or give `tune` an --out of its own"
            )
        if self.dtype == "float16" and not adapter.has_float16:
            return f"{adapter.name} has no shader-f16: tune with --dtype float32"
        self.adapter = adapter
        return ""


class BrowserRunner:
    """Measures in tabs that have opened the page of a TabServer.

    Attributes:
        device, family: of the first tab's adapter.
    """

    def __init__(self, server: TabServer, admission: Admission, log: Callable[[str], None], ends: float) -> None:
        """Wait for the first tab.

        log: gets a line when nobody measures. ends: by time.monotonic(), when to wait no longer for a tab.

        Raises UserError if that time is over.
        """
        self._server = server
        self._log = log
        self._ends = ends
        self._target: Target = tvm_target(TARGETS["webgpu"])
        self._build_seconds: list[float] = []
        self._answers: list[WorkAnswer] = []
        reminded = time.monotonic()
        while (adapter := admission.adapter) is None:
            reminded = self._remind(reminded)
            time.sleep(LOOK_SECONDS / 5)
        self.device = adapter.name
        self.family = adapter.family

    @property
    def batch(self) -> int:
        """One job for each tab, and one that is compiled meanwhile."""
        return 1 + max(1, len(self._server.adapters()))

    def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
        """Compile each job, and have it checked and timed in a tab.

        It takes a job as soon as fewer are under way than `batch`.
        """
        under_way: deque[tuple[Job, Future[Answer] | Measured]] = deque()
        for job in jobs:
            under_way.append((job, self._give(job)))
            if len(under_way) >= self.batch:
                yield self._measured(*under_way.popleft())
        while under_way:
            yield self._measured(*under_way.popleft())

    def parts(self) -> str:
        """Say what the seconds of a job went to, the median of each part; empty if none was done."""
        if not self._answers:
            return ""
        parts = {
            "building": statistics.median(self._build_seconds),
            "loading": statistics.median(one.load_ms for one in self._answers) / 1e3,
            "pipelines": statistics.median(one.pipeline_ms for one in self._answers) / 1e3,
            "running": statistics.median(one.run_ms for one in self._answers) / 1e3,
        }
        each = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
        return f"{sum(parts.values()):.2f} s a job (medians of {len(self._answers)}): {each}"

    def _give(self, job: Job) -> Future[Answer] | Measured:
        """Compile a job and give it to the tabs, or say why that cannot be."""
        began = time.monotonic()
        try:
            shaders = [compile_shader(kernel, self._target) for kernel in job.kernels]
        except (ScheduleError, ValueError) as error:
            return refusal(error)
        self._build_seconds.append(time.monotonic() - began)
        rounds, ms = (SAMPLES, SAMPLES_MS) if job.rounds == 1 else (job.rounds, ROUND_MS * job.rounds)
        return self._server.measure(describe_work(shaders, _known(job), rounds, ms))

    def _measured(self, job: Job, given: Future[Answer] | Measured) -> Measured:
        if isinstance(given, Measured):
            return given
        try:
            answer = read_answer(self._wait(given), len(job.kernels))
            problems = list(filter(None, map(problem_of, answer.kernels)))
            if problems:
                return Measured(problem=problems[0])
            outputs = tuple(output_of(kernel, _known(job), job.arguments[-1]) for kernel in answer.kernels)
        except Abandoned as error:
            return Measured(problem=str(error))
        except NoAnswer as error:
            return Measured(problem=f"a tab gave {error}")
        self._answers.append(answer)
        times = [kernel.seconds for kernel in answer.kernels]
        if job.rounds == 1:
            return Measured(outputs, (tuple(map(statistics.median, times)),))
        return Measured(outputs, tuple(zip(*times, strict=True)))

    def _wait(self, given: Future[Answer]) -> Answer:
        reminded = time.monotonic()
        while True:
            try:
                return given.result(LOOK_SECONDS)
            except TimeoutError:
                reminded = time.monotonic() if self._server.adapters() else self._remind(reminded)

    def _remind(self, reminded: float) -> float:
        """Say now and then that nobody measures; return when it was said last. Raises UserError if time is over."""
        now = time.monotonic()
        if now > self._ends:
            remedy = f"open {self._server.address} within that time; the same command goes on from here"
            raise UserError("--time-limit", "no tab that measures until it was over", "one", remedy)
        if now - reminded < REMIND_SECONDS:
            return reminded
        self._log(f"nobody measures: open {self._server.address} in a browser with WebGPU on this machine")
        return now


def _known(job: Job) -> tuple[tuple[int, int], ...]:
    return job.known or ((0, int(np.prod(job.arguments[-1].shape))),)

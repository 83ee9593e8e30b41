"""Measures candidates on the servers of TVM's RPC tracker, all of them at once: `tune --runner rpc`.

This machine compiles, and each free server measures. Servers of one key are machines of one kind: the times of a search
can only be compared if one kind of device has taken them, so a server with another processor ends the search.

A server that ends in the middle, or that says nothing any more, costs time only: another one measures its job.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from tvm import rpc
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import INSTRUCTION_SETS
from mlc_controlnet.tuning.remote_processor import build_library, describe_server, measure_on_server
from mlc_controlnet.tuning.runner import Job, Measured, refusal
from mlc_controlnet.tuning.tracker import Place, Tracker

ATTEMPTS = 3  # a kernel that has ended so many servers is to blame itself
SECONDS_A_KERNEL = 120  # of a session: after this the server ends it
GRACE_SECONDS = 30  # after this a server that says nothing has vanished
PREFIX = "RPCError: Error caught from RPC call: "
LOST = (RuntimeError, OSError)  # what a call raises if it fails on the server, and if the server has ended

Answer = TypeVar("Answer")


class TrackerRunner:
    """Measures on the servers of one key."""

    def __init__(self, tracker: Tracker) -> None:
        """Ask the first free server for its processor.

        Raises:
            UserError: there is no tracker, no server, or none that kernels can be compiled for.
        """
        self.tracker = tracker
        place = tracker.take()
        self._first = _within(SECONDS_A_KERNEL, lambda: describe_server(_connect(place, SECONDS_A_KERNEL)))
        if self._first is None:
            got = "nothing: it cannot be reached, has ended or lacks TVM's compiler"
            raise self._refuse(place, got, "a server of the same TVM as here")
        if not self._first.instruction_sets:
            names = ", ".join(INSTRUCTION_SETS)
            raise self._refuse(place, f"{self._first.device}, {self._first.system}", f"Linux on one of {names}")
        self.device, self.family = self._first.device, self._first.instruction_sets[0]
        self.target = Target(INSTRUCTION_SETS[self.family].tvm_target)
        self._alike = {place.address}  # servers that have the first one's processor

    @property
    def batch(self) -> int:
        """Two jobs a server: the one that it measures, and the next."""
        return 2 * max(1, self.tracker.count())

    def run(self, jobs: Iterable[Job]) -> Iterator[Measured]:
        """Compile one job after the other, and have each measured by the next free server."""
        waiting: deque[Future[Measured]] = deque()
        room = self.batch
        try:
            for job in jobs:
                waiting.append(self._start(job))
                while waiting and (waiting[0].done() or len(waiting) >= room):
                    yield waiting[0].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0].result()
                waiting.popleft()
        finally:  # to leave in the middle of a call aborts this process, and may end the server
            wait(waiting, GRACE_SECONDS)

    def _start(self, job: Job) -> "Future[Measured]":
        try:
            libraries = [build_library(kernel, self.target) for kernel in job.kernels]
        except (ScheduleError, ValueError) as error:
            refused: Future[Measured] = Future()
            refused.set_result(refusal(error))
            return refused
        return _in_thread(lambda: self._measure(libraries, job))

    def _measure(self, libraries: list[bytes], job: Job) -> Measured:
        seconds = SECONDS_A_KERNEL * len(libraries)
        for _ in range(ATTEMPTS):
            place = self.tracker.take()
            measured = _within(seconds, partial(self._measure_at, place, seconds, libraries, job))
            if measured is not None:
                return measured
        return Measured(problem=f"{ATTEMPTS} servers ended while they measured it")

    def _measure_at(self, place: Place, seconds: int, libraries: list[bytes], job: Job) -> Measured:
        session = _connect(place, seconds)
        if place.address not in self._alike:
            found = describe_server(session)
            if found != self._first:
                raise self._refuse(place, found.device, f"{self.device}, as the first one has")
            self._alike.add(place.address)
        try:
            return measure_on_server(session, libraries, job)
        except LOST as error:
            _check_alive(session)
            return Measured(problem=f"the server refuses it: {' '.join(str(error).split()).removeprefix(PREFIX)}")

    def _refuse(self, place: Place, got: str, wanted: str) -> UserError:
        subject = f"{self.tracker.subject}, server {place.address} of the key {self.tracker.key}"
        return UserError(subject, got, wanted, "end it, or give it a key of its own")


def _connect(place: Place, seconds: int) -> rpc.RPCSession:
    return rpc.connect(place.host, place.port, place.word, session_timeout=seconds)


def _check_alive(session: rpc.RPCSession) -> None:
    """Raise one of LOST unless the server answers."""
    session.get_function("runtime.NumThreads")()


def _within(seconds: float, work: Callable[[], Answer]) -> Answer | None:
    """Return what `work` returns, or None if the server was lost or says nothing for so long."""
    try:
        return _in_thread(work).result(seconds + GRACE_SECONDS)
    except (*LOST, AttributeError):  # the second: a function that the server does not have
        return None


def _in_thread(work: Callable[[], Answer]) -> "Future[Answer]":
    """Begin `work` in a thread that does not keep the process alive: a call may wait for ever for a lost server."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future

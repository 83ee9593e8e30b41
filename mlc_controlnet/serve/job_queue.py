"""One bounded queue in front of one device: jobs wait, are drawn one after another, and can be cancelled.

Everything here runs in the server's event loop; only the pipe to the worker is read in a thread. The server sleeps
while a picture is drawn: how far it is stands on the worker's `Board`, for whoever asks.
"""

import asyncio
import logging
import math
import multiprocessing
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.worker import (
    GO_ON,
    KEEP,
    STOP,
    Answer,
    Board,
    Drawn,
    Ended,
    Failed,
    Order,
    Stepped,
    WorkerOptions,
    run_worker,
)

log = logging.getLogger(__name__)

KEPT_JOBS = 32  # finished ones, whose pictures can still be asked for
FIRST_GUESS_SECONDS = 5.0  # of a job, before one is finished
_OUR_ERROR = UserError("job", "an error in the server", "a finished picture", "the server's log has the traceback")


class State(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    DRAWING = "drawing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(eq=False)
class Job:
    """One request on its way through the queue. Its fields change while it is drawn; `follow` tells of each change."""

    order: Order
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = State.WAITING
    progress: Stepped | None = None
    drawn: list[Drawn] = field(default_factory=list)
    error: UserError | None = None
    is_our_fault: bool = False  # of the error: the client could not have avoided it
    created: float = field(default_factory=time.time)
    started: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """Whether it will change no more."""
        return self.state not in (State.WAITING, State.DRAWING)

    @property
    def share(self) -> float:
        """The share of its steps that are done, 0 to 1."""
        if self.is_over or self.progress is None:
            return float(self.is_over)
        return (self.progress.image + self.progress.step / self.progress.steps) / len(self.order.requests)

    def fail(self, error: UserError, is_our_fault: bool) -> None:
        """End with an error."""
        self.error, self.is_our_fault = error, is_our_fault
        self.change(State.FAILED)

    def change(self, state: State | None = None) -> None:
        """Tell those who follow."""
        if state is not None:
            self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Stepped | Drawn]:
        """Yield the progress and every picture as they come, until the job is over. Progress may be skipped.

        Without `tells_steps` of its order, only what `JobQueue.look` has asked for comes.
        """
        seen, last = 0, None
        while True:
            changed = self._changed
            if self.progress is not None and self.progress is not last:
                last = self.progress
                yield last
            while seen < len(self.drawn):
                seen += 1
                yield self.drawn[seen - 1]
            if self.is_over and seen == len(self.drawn):
                return
            if changed is self._changed:
                await changed.wait()

    async def finished(self) -> None:
        """Return when the job is over."""
        while not self.is_over:
            await self._changed.wait()


class QueueFull(Exception):
    """No place is left.

    Attributes:
        retry_after: seconds until one is probably free.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class WorkerLost(Exception):
    """The worker's process ended in the middle of a job."""


class Worker:
    """The process that draws, seen from the server."""

    def __init__(self, options: WorkerOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self._board = context.RawValue(Board)
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=run_worker, args=(theirs, self._board, options), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process closes the pipe

    def clear(self) -> None:
        """Forget the last order: nothing is told, and nothing done. What is told from now on is of the next order."""
        board = self._board
        board.told, board.asked, board.image, board.step, board.steps = GO_ON, 0, 0, 0, 0

    def send(self, order: Order) -> None:
        """Start an order. Waits until the process has started and takes its pictures. Raises WorkerLost."""
        try:
            self._connection.send(order)
        except OSError as error:
            raise WorkerLost from error

    def receive(self) -> Answer:
        """Wait for the next answer. Raises WorkerLost."""
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost from error
        return answer

    def tell(self, what: int) -> None:
        """Say KEEP or STOP. The worker reads it after its step."""
        self._board.told = what

    def ask(self) -> None:
        """Let the worker send its next step."""
        self._board.asked = 1

    def steps_done(self) -> tuple[int, int, int]:
        """Return image, step and steps as `Stepped` has them; steps is 0 before the first step is done."""
        return self._board.image, self._board.step, self._board.steps

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self._connection.close()


class JobQueue:
    """Waiting jobs, the one that is drawn, and the last finished ones."""

    def __init__(self, start_worker: Callable[[], Worker], waiting: int, logs_prompts: bool = False) -> None:
        self._start_worker = start_worker
        self._room = waiting
        self._logs_prompts = logs_prompts
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._jobs: dict[str, Job] = {}  # by id, in the order of arrival
        self._seconds = FIRST_GUESS_SECONDS
        self._worker: Worker | None = None
        self.current: Job | None = None
        self.restarts = 0
        self.ended: Counter[tuple[str, str]] = Counter()  # by model and state
        self.seconds_drawing = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def worker_id(self) -> int | None:
        """The process id of the worker; None before the first job."""
        return None if self._worker is None else self._worker.process.pid

    def submit(self, order: Order) -> Job:
        """Let an order wait. Raises QueueFull."""
        if len(self._waiting) + (self.current is not None) > self._room:
            raise QueueFull(max(1, math.ceil(self._seconds)))
        job = Job(order)
        if self._logs_prompts:
            log.warning("job %s by %s: %s", job.id, order.model, [request.prompt for request in order.requests])
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._arrived.set()
        return job

    def find(self, id: str) -> Job | None:
        """Return a job that waits, is drawn, or has been finished lately."""
        return self._jobs.get(id)

    def look(self, job: Job) -> Stepped | None:
        """Return how far a job is; None before its first step.

        If the job has previews, this asks for the next step's. The one that is returned may be an earlier step's.
        """
        if job is self.current and self._worker is not None:
            image, step, steps = self._worker.steps_done()
            last = job.progress
            if steps and (last is None or (last.image, last.step, last.steps) != (image, step, steps)):
                job.progress = Stepped(image, step, steps, None if last is None else last.preview)
            if job.order.previews:
                self._worker.ask()
        return job.progress

    def place(self, job: Job) -> int:
        """Return how many jobs are drawn before this one."""
        return self._waiting.index(job) + 1 if job in self._waiting else 0

    def cancel(self, job: Job, keep: bool = False) -> None:
        """End a job: at once if it waits, after its step if it is drawn.

        With `keep`, the picture is what its last step predicts.
        """
        if job in self._waiting:
            self._waiting.remove(job)
            job.change(State.CANCELLED)
            self._count(job)
        elif job is self.current and self._worker is not None:
            self._worker.tell(KEEP if keep else STOP)

    async def run(self) -> None:
        """Draw job after job, for as long as the server runs."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._draw(self._waiting.popleft())

    async def _draw(self, job: Job) -> None:
        self.current = job
        job.started = time.time()
        job.change(State.DRAWING)
        try:
            await self._converse(job)
        except WorkerLost:
            self._end_worker()
            self.restarts += 1
            log.warning("the process that draws has ended in the middle of a job; the next job starts another one")
            remedy = "ask again; if it happens again, the machine may lack memory"
            job.fail(UserError("job", "the end of the process that draws", "a finished picture", remedy), True)
        except Exception:  # no memory for a process, for example; the jobs that wait need this loop
            self._end_worker()
            log.exception("a picture failed in the server; the next job starts another process")
            job.fail(_OUR_ERROR, True)
        finally:
            self.look(job)
            self.current = None
        seconds = time.time() - job.started
        self.seconds_drawing += seconds
        if job.state is State.DONE:
            self._seconds = (self._seconds + seconds) / 2
        self._count(job)

    async def _converse(self, job: Job) -> None:
        if self._worker is None or not self._worker.process.is_alive():
            self._end_worker()
            self._worker = self._start_worker()
        worker = self._worker
        worker.clear()
        await asyncio.to_thread(worker.send, job.order)
        while not job.is_over:
            match await asyncio.to_thread(worker.receive):
                case Stepped() as progress:
                    job.progress = progress
                    job.change()
                case Drawn() as drawn:
                    job.drawn.append(drawn)
                    job.change()
                case Ended(stopped):
                    job.change(State.CANCELLED if stopped else State.DONE)
                case Failed(UserError() as error, _):
                    job.fail(error, False)
                case Failed(None, traceback):
                    log.error("a picture failed:\n%s", traceback)
                    job.fail(_OUR_ERROR, True)

    def close(self) -> None:
        """End the process that draws."""
        self._end_worker()

    def _count(self, job: Job) -> None:
        """Count a job that is over, and forget the oldest ones."""
        self.ended[job.order.model, job.state.value] += 1
        over = [id for id, job in self._jobs.items() if job.is_over]
        for id in over[: max(0, len(over) - KEPT_JOBS)]:
            del self._jobs[id]

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

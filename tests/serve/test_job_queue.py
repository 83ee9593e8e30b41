"""The queue with workers that are not processes: what it does while one starts, and when none can be started."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from mlc_controlnet.serve.job_queue import JobQueue, State
from mlc_controlnet.serve.worker import STOP, Ended, Order

ORDER = Order("linear", (), previews=False)


class Worker:
    """Takes an order when the test lets it, and ends it at once."""

    def __init__(self) -> None:
        self.process = type("Process", (), {"is_alive": lambda self: True, "pid": 1})()
        self.takes = threading.Event()
        self.told = None

    def clear(self) -> None:
        self.told = None

    def send(self, order: Order) -> None:
        assert self.takes.wait(10)

    def receive(self) -> Ended:
        return Ended(self.told == STOP)

    def tell(self, what: int) -> None:
        self.told = what

    def steps_done(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def end(self) -> None:
        self.takes.set()


@contextlib.asynccontextmanager
async def running(queue: JobQueue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    yield
    task.cancel()
    queue.close()


def test_the_server_answers_while_a_process_starts_and_takes_its_pictures():
    async def ask() -> None:
        worker = Worker()
        queue = JobQueue(lambda: worker, 8)
        async with running(queue):
            job = queue.submit(ORDER)
            await asyncio.wait_for(asyncio.sleep(0.05), 1)
            assert job.state is State.DRAWING
            queue.cancel(job)  # which is not forgotten
            worker.takes.set()
            await asyncio.wait_for(job.finished(), 10)
            assert job.state is State.CANCELLED

    asyncio.run(ask())


def test_a_process_that_cannot_be_started_fails_its_job_and_no_other():
    starts = []

    def start() -> Worker:
        starts.append(1)
        if len(starts) == 1:
            raise OSError(12, "Cannot allocate memory")
        worker = Worker()
        worker.takes.set()
        return worker

    async def ask() -> list[State]:
        queue = JobQueue(start, 8)
        async with running(queue):
            jobs = [queue.submit(ORDER), queue.submit(ORDER)]
            for job in jobs:
                await asyncio.wait_for(job.finished(), 10)
            assert jobs[0].is_our_fault
            return [job.state for job in jobs]

    assert asyncio.run(ask()) == [State.FAILED, State.DONE]

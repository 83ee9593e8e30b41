"""Wait for a job on behalf of a client that may go away."""

import asyncio

from fastapi import Request

from mlc_controlnet.serve.job_queue import Job, JobQueue

LOOK_SECONDS = 0.1  # how often to look whether the client is still there


async def wait_for(job: Job, queue: JobQueue, request: Request) -> None:
    """Return when the job is over. A client that goes away cancels it, which frees its place in the queue."""
    while not job.is_over:
        try:
            await asyncio.wait_for(job.finished(), LOOK_SECONDS)
        except TimeoutError:
            if await request.is_disconnected():
                queue.cancel(job)

"""Wait for a job on behalf of a client that may go away."""

import asyncio

from fastapi import Request

from mlc_controlnet.serve.job_queue import Job, JobQueue


async def wait_for(job: Job, queue: JobQueue, request: Request) -> None:
    """Return when the job is over. A client that goes away cancels it, which frees its place in the queue."""
    finished = asyncio.create_task(job.finished())
    gone = asyncio.create_task(_goes_away(request))
    try:
        await asyncio.wait((finished, gone), return_when=asyncio.FIRST_COMPLETED)
        if not job.is_over:
            queue.cancel(job)
        await finished
    finally:
        finished.cancel()
        gone.cancel()


async def _goes_away(request: Request) -> None:
    """Return when the client has closed its connection. The body has been read: no more of it comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

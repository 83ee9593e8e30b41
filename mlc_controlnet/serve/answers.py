"""Answers: a UserError in the form of the interface that was spoken to, and what becomes of a job in our own."""

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse, Response

from mlc_controlnet.errors import UserError
from mlc_controlnet.notices import Notice
from mlc_controlnet.runtime.request import OPTIONS
from mlc_controlnet.serve.job_queue import Job, JobQueue, State
from mlc_controlnet.serve.pictures import to_base64
from mlc_controlnet.serve.worker import Drawn, Stepped

WEBUI_PREFIXES = ("/sdapi/", "/controlnet/")  # of Stable Diffusion web UI's interface


def error_answer(path: str, error: UserError, status: HTTPStatus, headers: dict[str, str] | None = None) -> Response:
    """Return an error as clients of the path know it: its four parts, or the web UI's form."""
    if path.startswith(WEBUI_PREFIXES):
        form = {"error": status.phrase, "detail": str(error), "body": "", "errors": error.got}
        return JSONResponse(form, status, headers)
    return JSONResponse(error_json(error), status, headers)


def status_of(job: Job) -> HTTPStatus:
    """Return the status of an answer about a job: a failure is the client's mistake or ours."""
    if job.state is State.FAILED:
        return HTTPStatus.INTERNAL_SERVER_ERROR if job.is_our_fault else HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.OK


def error_json(error: UserError) -> dict[str, Any]:
    """Return the four parts of an error, and its one line."""
    parts = {name: getattr(error, name) for name in ("subject", "got", "wanted", "remedy")}
    return {"error": {**parts, "message": str(error)}}


def drawn_json(drawn: Drawn) -> dict[str, Any]:
    """Return a picture, PNG in base64, with the settings that draw it again and what was noticed."""
    settings = {name: getattr(drawn.settings, name) for name in OPTIONS}
    told = {"notices": list(drawn.notices), "notice_codes": [_code_json(notice) for notice in drawn.notices]}
    return {"image": to_base64(drawn.png), "settings": settings, **told}


def _code_json(notice: str) -> dict[str, Any] | None:
    """Return the code and values of a notice that has them, for texts in other languages."""
    return {"code": notice.code, "values": notice.values} if isinstance(notice, Notice) else None


def progress_json(progress: Stepped) -> dict[str, Any]:
    """Return the progress of a job; `preview` is a PNG in base64 with one pixel for each latent cell."""
    counts = {"image": progress.image, "step": progress.step, "steps": progress.steps}
    return counts if progress.preview is None else {**counts, "preview": to_base64(progress.preview)}


def job_json(job: Job, queue: JobQueue) -> dict[str, Any]:
    """Return a job's state, its progress, and the pictures that are finished."""
    progress = queue.look(job)
    return {
        "id": job.id,
        "model": job.order.model,
        "state": job.state,
        "place": queue.place(job),
        "progress": None if progress is None else progress_json(progress),
        "images": [drawn_json(drawn) for drawn in job.drawn],
        **({} if job.error is None else error_json(job.error)),
    }

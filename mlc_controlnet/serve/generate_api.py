"""Our own interface: /v1/generate, /v1/jobs and /v1/models."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.annotators.named import Annotator
from mlc_controlnet.serve.answers import drawn_json, error_json, job_json, progress_json, status_of
from mlc_controlnet.serve.generate_body import GenerateBody, parse_form, parse_json, to_requests
from mlc_controlnet.serve.job_queue import Job, JobQueue, State
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.models import ServedModel, ServedModels
from mlc_controlnet.serve.waiting import wait_for
from mlc_controlnet.serve.worker import Order, Stepped

_SCHEMA = GenerateBody.model_json_schema()
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "the job with its pictures; image/png or text/event-stream if the request accepts that"},
    202: {"description": "the job, which goes on: for a request with `Prefer: respond-async`"},
    401: {"description": "a wrong token, or none"},
    413: {"description": "a body that is too large"},
    422: {"description": "an option or a picture that cannot be used: subject, got, wanted, remedy"},
    429: {"description": "the queue is full; Retry-After says for how many seconds"},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "no such job, or one that is long over"}}


def generate_routes(
    models: ServedModels, queue: JobQueue, limits: Limits, annotators: Mapping[str, Annotator]
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["generate"])

    @routes.post("/generate", openapi_extra=_BODY, responses=_ANSWERS, response_model=None)
    async def generate(request: Request) -> Response:
        """Draw pictures. The body is JSON with pictures in base64, or multipart/form-data with files."""
        body = await _parse(request)
        model = models.named(body.model)
        requests = await asyncio.to_thread(to_requests, body, limits, annotators)
        for one in requests:
            model.resolve(one, limits)
        accepted = request.headers.get("accept", "")
        is_async = "respond-async" in request.headers.get("prefer", "")
        tells_steps = "text/event-stream" in accepted and not is_async
        job = queue.submit(Order(model.name, tuple(requests), body.previews, tells_steps))
        if is_async:
            headers = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return JSONResponse(job_json(job, queue), HTTPStatus.ACCEPTED, headers)
        if tells_steps:
            return _EventStream(job, queue)
        await wait_for(job, queue, request)
        headers = {"X-Job": job.id, "Server-Timing": f"draw;dur={1000 * sum(one.seconds for one in job.drawn):.1f}"}
        if job.state is State.DONE and accepted.startswith("image/png") and len(job.drawn) == 1:
            return Response(job.drawn[0].png, media_type="image/png", headers=headers)
        return JSONResponse(job_json(job, queue), status_of(job), headers)

    @routes.get("/models")
    async def list_models() -> dict[str, Any]:
        """List the models, the default one first."""
        described = [_describe(model) for model in models.models]
        return {"models": described, "annotators": list(annotators)}

    @routes.get("/models/{name}/manifest", response_model=None)
    async def show_manifest(name: str) -> Response:
        """Return the manifest of a model's bundle, which says all that it can do."""
        model = models.named(name)
        return Response((model.bundle.path / MANIFEST_NAME).read_bytes(), media_type="application/json")

    @routes.get("/jobs/{id}", responses=_UNKNOWN, response_model=None)
    async def show_job(id: str) -> Response:
        """Return a job's state, its progress and its finished pictures."""
        job = queue.find(id)
        return _unknown(id) if job is None else JSONResponse(job_json(job, queue))

    @routes.delete("/jobs/{id}", responses=_UNKNOWN, response_model=None)
    async def cancel_job(id: str) -> Response:
        """Cancel a job: at once if it waits, after its step if it is drawn."""
        job = queue.find(id)
        if job is None:
            return _unknown(id)
        queue.cancel(job)
        await job.finished()
        return JSONResponse(job_json(job, queue))

    return routes


async def _parse(request: Request) -> Any:
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form() as form:
            return await parse_form(form)
    try:
        data = await request.json()
    except (ValueError, RecursionError):
        got, remedy = "something that is not JSON", "send JSON, or multipart/form-data"
        raise UserError("body", got, "a JSON object", remedy) from None
    return parse_json(data)


class _EventStream(StreamingResponse):
    """Tells a job as server-sent events. A client that goes away cancels it, also before the first event."""

    def __init__(self, job: Job, queue: JobQueue) -> None:
        super().__init__(_events(job, queue), media_type="text/event-stream")
        self._job, self._queue = job, queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._queue.cancel(self._job)


async def _events(job: Job, queue: JobQueue) -> AsyncIterator[str]:
    yield _event("job", {"id": job.id, "place": queue.place(job)})
    async for change in job.follow():
        if isinstance(change, Stepped):
            yield _event("progress", progress_json(change))
        else:
            yield _event("image", drawn_json(change))
    yield _event("error", error_json(job.error)) if job.error else _event("end", {"state": job.state})


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _unknown(id: str) -> Response:
    error = UserError("job", repr(id), "a job that is not long over", "ask for the id that POST /v1/generate gave")
    return JSONResponse(error_json(error), HTTPStatus.NOT_FOUND)


def _describe(model: ServedModel) -> dict[str, Any]:
    manifest = model.manifest
    own = (manifest.model.width, manifest.model.height)
    sizes = dict.fromkeys([own, *((variant.width, variant.height) for variant in manifest.variants)])
    return {
        "name": model.name,
        "bundle_sha256": model.bundle.sha256,
        "target": manifest.target,
        "sizes": [{"width": width, "height": height} for width, height in sizes],
        "controlnets": [{"name": one.name, "kind": one.kind} for one in manifest.controlnets],
        "samplers": sorted(model.samplers.samplers),
        "defaults": {"num_inference_steps": manifest.defaults.steps, "sampler": manifest.samplers.default},
    }

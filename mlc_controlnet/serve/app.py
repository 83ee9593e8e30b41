"""The server: both interfaces, its figures, and the page, behind one guard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from mlc_controlnet import __version__
from mlc_controlnet.errors import UserError
from mlc_controlnet.images.annotators import ANNOTATORS
from mlc_controlnet.serve.annotators.named import Annotator
from mlc_controlnet.serve.answers import error_answer
from mlc_controlnet.serve.generate_api import generate_routes
from mlc_controlnet.serve.generate_body import as_user_error, first_fault
from mlc_controlnet.serve.guard import Guard
from mlc_controlnet.serve.job_queue import JobQueue, QueueFull, Worker
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.metrics import metrics_route
from mlc_controlnet.serve.models import ServedModels
from mlc_controlnet.serve.page import mount_page
from mlc_controlnet.serve.webui_api import Webui, webui_routes
from mlc_controlnet.serve.worker import WorkerOptions


@dataclass(frozen=True)
class ServeOptions:
    """How a server behaves, besides its models.

    Attributes:
        device, reduced_memory: see `ControlNetPipeline.from_bundle`.
        token: what every request must bring; None: nothing.
        hosts: names by which the server may be addressed; None: any.
        origins: origins of other pages that may ask.
        page: the folder of the built page; None: no page.
        logs_prompts: whether the log has the prompt of each picture.
        annotators: those that the operator names, beside the package's own or in place of them.
    """

    device: str | None = None
    reduced_memory: bool = False
    token: str | None = None
    hosts: Collection[str] | None = None
    origins: Collection[str] = ()
    page: Path | None = None
    annotators: Mapping[str, Annotator] = field(default_factory=dict)
    logs_prompts: bool = False
    limits: Limits = field(default_factory=Limits)


def create_app(models: ServedModels, options: ServeOptions) -> FastAPI:
    """Return the ASGI application. It starts the process that draws with its first job."""
    bundles = {model.name: model.bundle.path.resolve() for model in models.models}
    worker = WorkerOptions(bundles, options.device, options.reduced_memory)
    queue = JobQueue(lambda: Worker(worker), options.limits.waiting, options.logs_prompts)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(queue.run())
        yield
        running.cancel()
        queue.close()

    app: FastAPI = FastAPIOffline(
        title="mlc-controlnet", version=__version__, lifespan=lifespan
    )  # /docs needs no network
    app.state.queue = queue
    annotators = {**ANNOTATORS, **options.annotators}
    app.include_router(generate_routes(models, queue, options.limits, annotators))
    app.include_router(webui_routes(Webui(models, queue, options.limits, annotators)))
    app.include_router(metrics_route(queue))
    _answer_errors(app)
    if options.page is not None:
        mount_page(app, options.page)
    app.add_middleware(CORSMiddleware, allow_origins=list(options.origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Guard, limits=options.limits, token=options.token, hosts=options.hosts, origins=options.origins)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Answer every mistake of a client with its four parts, in the form of the interface that it spoke to."""

    def answer(
        request: Request, error: UserError, status: HTTPStatus, headers: dict[str, str] | None = None
    ) -> Response:
        return error_answer(request.url.path, error, status, headers)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        got = f"{request.method} {request.url.path}"
        fault = UserError("address", got, f"another one: {status.phrase.lower()}", "GET /docs lists all routes")
        return answer(request, fault, status, dict(error.headers or {}))

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> Response:
        return answer(request, error, HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.exception_handler(QueueFull)
    async def queue_full(request: Request, error: QueueFull) -> Response:
        full = UserError("queue", "no free place", "fewer requests at once", f"try again in {error.retry_after} s")
        return answer(request, full, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(error.retry_after)})

    @app.exception_handler(ValidationError)
    async def wrong_fields(request: Request, error: ValidationError) -> Response:
        return answer(request, first_fault(error), HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.exception_handler(RequestValidationError)
    async def wrong_body(request: Request, error: RequestValidationError) -> Response:
        return answer(request, as_user_error(error.errors()[0], "body"), HTTPStatus.UNPROCESSABLE_ENTITY)

"""Serves the page that measures, on this machine only, and speaks with its tabs.

    GET  /TOKEN/          the page, and GET /TOKEN/FILE its scripts
    POST /TOKEN/join      an adapter; the answer is a line of JSON for each message to the tab, until the tab goes away
    POST /TOKEN/answer    what a tab measured, or that its device is lost

A tab keeps the answer to its `join` open: when that connection breaks, its candidate goes to another tab.
"""

import asyncio
import contextlib
import hmac
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.guard import LOOPBACK, Guard
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.listen import open_socket
from mlc_controlnet.site.serve import CONTENT_TYPES
from mlc_controlnet.tuning.browser.adapter import Adapter, read_adapter
from mlc_controlnet.tuning.browser.board import PATIENCE_SECONDS, Answer, Board, Message, Tab

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
PULSE_SECONDS = 10.0  # a tunnel between tab and server may close a connection that is silent
ANSWER_BYTES = 64 * 2**20  # some rows of a few outputs, in base64


class TabServer:
    """A server in a thread of its own. Use it in a `with` block; at its end all tabs are told that it is over.

    Attributes:
        address: of the page, with a random token: nobody else on this machine finds it.
        board: to be used on the server's event loop only.
    """

    def __init__(
        self, refusal: Callable[[Adapter], str], port: int | None = None, patience: float = PATIENCE_SECONDS
    ) -> None:
        """refusal, patience: see Board. port: None: any free one. Raises UserError if the port cannot be had."""
        self.board = Board(refusal, patience)
        self._token = secrets.token_urlsafe(16)
        self._socket = open_socket(None, port or 0)
        host, number = self._socket.getsockname()[:2]
        self.address = f"http://{host}:{number}/{self._token}/"
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            self._app(),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="tabs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self.board.close)
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def measure(self, work: Message) -> Future[Answer]:
        """Give `work` to the next tab that is free; the result is its answer, or Abandoned is raised there."""
        return self._on_loop(self.board.measure(work))

    def adapters(self) -> list[Adapter]:
        """Return the adapters of the tabs that are there now."""

        async def look() -> list[Adapter]:
            return [tab.adapter for tab in self.board.tabs.values()]

        return self._on_loop(look()).result()

    def _on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        self._loop.close()

    def _app(self) -> Guard:
        routes = [
            Route("/{token}/", self._show),
            Route("/{token}/join", self._join, methods=["POST"]),
            Route("/{token}/answer", self._answer, methods=["POST"]),
            Route("/{token}/{file}", self._show),
        ]
        return Guard(Starlette(routes=routes), Limits(body_bytes=ANSWER_BYTES), None, LOOPBACK, ())

    def _is_let_in(self, request: Request) -> bool:
        return hmac.compare_digest(request.path_params["token"].encode(), self._token.encode())

    async def _show(self, request: Request) -> Response:
        name = request.path_params.get("file", INDEX)
        files = {file.name: file for file in PAGE.iterdir()} if self._is_let_in(request) else {}
        if name not in files:
            return _nothing()
        headers = {"Content-Security-Policy": POLICY}
        return Response(files[name].read_bytes(), media_type=CONTENT_TYPES[files[name].suffix], headers=headers)

    async def _join(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return _nothing()
        try:
            adapter = read_adapter(await _json(request))
        except UserError as error:
            return JSONResponse({"message": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        joined = self.board.join(adapter)
        if isinstance(joined, str):
            return JSONResponse({"message": joined}, HTTPStatus.CONFLICT)
        return _Messages(joined, self.board)

    async def _answer(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return _nothing()
        try:
            body = await _json(request)
            tab_id, number, answer = str(body["tab"]), int(body["job"]), body["answer"]
            lost = answer.get("lost")
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            return JSONResponse({"message": "no answer of a tab"}, HTTPStatus.UNPROCESSABLE_ENTITY)
        tab = self.board.tabs.get(tab_id)
        if tab is not None and lost is not None:
            self.board.leave(tab, lost_device=True)
        elif not self.board.answer(tab_id, number, answer):
            return Response(status_code=HTTPStatus.GONE)
        return Response(status_code=HTTPStatus.NO_CONTENT)


class _Messages(StreamingResponse):
    """Tells a tab its messages. A tab that goes away leaves the board, also before the first message."""

    def __init__(self, tab: Tab, board: Board) -> None:
        super().__init__(_lines(tab), media_type="application/x-ndjson")
        self._tab, self._board = tab, board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._board.leave(self._tab)


async def _lines(tab: Tab) -> AsyncIterator[str]:
    while True:
        try:
            message = await asyncio.wait_for(tab.messages.get(), PULSE_SECONDS)
        except TimeoutError:
            message = {"kind": "pulse"}
        if message is None:
            return
        yield json.dumps(message) + "\n"


def _nothing() -> Response:
    return JSONResponse({"message": "there is nothing here: open the address that tune printed"}, HTTPStatus.NOT_FOUND)


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise UserError("body", "something that is not JSON", "a JSON object", "send one") from None

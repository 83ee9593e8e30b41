"""What stands before every request: who may ask, from where, and how much a body may hold.

A server on this machine is reachable from every page that the machine's browser shows. So a request that names another
host (DNS rebinding) or comes from another origin is refused, unless the operator allows that origin.
"""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.answers import error_answer
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.site.hosting import ASK_AGAIN, HEADERS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/healthz",)  # answer without a token


class Guard:
    """ASGI middleware.

    Attributes:
        token: what a request must bring, as a bearer token or as the password of basic authentication; None: nothing.
        hosts: names by which the server may be addressed; None: any.
        origins: origins of pages that may ask besides the server's own.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, token: str | None, hosts: Collection[str] | None, origins: Collection[str]
    ) -> None:
        self.app = app
        self.limits = limits
        self.token = token
        self.hosts = hosts
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, send = Headers(scope=scope), _with_headers(send)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            body = await self._read(scope["path"], receive, headers)
            if isinstance(body, Response):
                refusal = body
            else:
                await self.app(scope, _replay(body, receive), send)
                return
        await refusal(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self.hosts is not None and host not in self.hosts:
            error = UserError("host", repr(host), " or ".join(self.hosts), "use one of these addresses")
            return error_answer(scope["path"], error, HTTPStatus.MISDIRECTED_REQUEST)
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != headers.get("host"):
            error = UserError("origin", repr(origin), "the server's own page", "allow it with --cors")
            return error_answer(scope["path"], error, HTTPStatus.FORBIDDEN)
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers  # brings no token
        if self.token is None or is_preflight or scope["path"] in OPEN_PATHS or self._has_token(headers):
            return None
        error = UserError("token", "a wrong one or none", "the server's", "send it as Authorization: Bearer TOKEN")
        return error_answer(
            scope["path"], error, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Bearer, Basic realm="mlc-controlnet"'}
        )

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        given = value.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                given = ""
        assert self.token is not None
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def _read(self, path: str, receive: Receive, headers: Headers) -> bytes | Response:
        """Read the body within the limits of size and time."""
        limit = self.limits.body_bytes
        too_large = UserError("body", "more bytes", f"{limit} bytes at most", "send smaller pictures")
        if int(length if (length := headers.get("content-length", "0")).isdecimal() else 0) > limit:
            return error_answer(path, too_large, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Connection": "close"})
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > limit:
                        return error_answer(
                            path, too_large, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Connection": "close"}
                        )
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            wanted = f"all of it within {self.limits.body_seconds:g} s"
            error = UserError("body", f"{len(body)} bytes", wanted, "send it faster, or less")
            return error_answer(path, error, HTTPStatus.REQUEST_TIMEOUT, {"Connection": "close"})


def _with_headers(send: Send) -> Send:
    """Return a `send` that adds the headers of the static page to every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**HEADERS, "Cache-Control": ASK_AGAIN}.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what the connection says."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Message:
        for message in messages:
            return message
        return await receive()

    return replayed

"""A static server for the built page, on this machine only."""

import http.server
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlc_controlnet.errors import UserError

HOST = "127.0.0.1"
DEFAULT_PORT = 8000
HEADERS = {
    # Cross-origin isolation: exact timers and shared memory, and nothing of another origin gets in.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # ask again each time: a new build must be seen
}
CONTENT_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",  # instantiateStreaming insists
}


class SiteHandler(http.server.SimpleHTTPRequestHandler):
    """Files only: no folder listings, and no log line for a request that went well."""

    # Read by SimpleHTTPRequestHandler before the machine's own table, which on some machines has no .wasm.
    extensions_map = CONTENT_TYPES
    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if int(code) >= HTTPStatus.BAD_REQUEST:
            super().log_request(code, size)


def open_server(folder: Path, port: int | None = None) -> http.server.ThreadingHTTPServer:
    """Return a server for `folder` that listens on `port`, or by default on 8000, or any free port if 8000 is in use.

    Raises UserError where there is no page, or the port that was asked for is taken or none.
    """
    if not (folder / "index.html").is_file():
        raise UserError(
            f"{folder}",
            "no index.html",
            "the built page",
            "build it with python -m mlc_controlnet build --target webgpu",
        )

    def handler(*arguments: Any) -> SiteHandler:
        return SiteHandler(*arguments, directory=str(folder))

    ports = [DEFAULT_PORT, 0] if port is None else [port]
    reason = ""
    for candidate in ports:
        try:
            return http.server.ThreadingHTTPServer((HOST, candidate), handler)
        except (OSError, OverflowError) as error:
            reason = str(error)
    raise UserError(f"port {port}", reason, "a free port", "choose another --port")

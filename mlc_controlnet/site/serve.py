"""A static server for the built page, on this machine only."""

import http.server
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlc_controlnet.errors import UserError
from mlc_controlnet.site.hosting import ASK_AGAIN, HEADERS

HOST = "127.0.0.1"
DEFAULT_PORT = 8000
CONTENT_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",  # instantiateStreaming insists
}


class SiteHandler(http.server.SimpleHTTPRequestHandler):
    """Files only: no folder listings, and no log line for a request that went well."""

    # Read by SimpleHTTPRequestHandler before the machine's own table, which on some machines has no .wasm.
    extensions_map = CONTENT_TYPES
    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        for name, value in {**HEADERS, "Cache-Control": ASK_AGAIN}.items():
            self.send_header(name, value)
        super().end_headers()

    def send_head(self) -> Any:
        """Answer with the compressed copy of a file, where there is one and the client takes it."""
        path = Path(self.translate_path(self.path))
        copy = path.with_name(f"{path.name}.gz")
        if "gzip" not in self.headers.get("Accept-Encoding", "") or not (path.is_file() and copy.is_file()):
            return super().send_head()
        content = copy.open("rb")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(copy.stat().st_size))
        self.send_header("Vary", "Accept-Encoding")
        self.end_headers()
        return content

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

"""Where the server listens."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlc_controlnet.errors import UserError
from mlc_controlnet.site.serve import DEFAULT_PORT, HOST

SHORTEST_TOKEN = 16  # characters
KEEP_ALIVE_SECONDS = 15
CLOSING_SECONDS = 5


def check_reach(listen: str | None, token: str | None, bundles: Sequence[Path], origins: Sequence[str]) -> None:
    """Raise UserError for a server that is open to other machines and to everybody, or that draws nothing."""
    if not bundles:
        raise UserError("--listen", "no --bundle", "a bundle to draw with", "the page alone is served here only")
    if listen is not None and token is None:
        wanted = "a --token, because everybody who reaches this machine could draw with it"
        raise UserError("--listen", "no token", wanted, "add for example --token $(openssl rand -hex 16)")
    if token is not None and len(token) < SHORTEST_TOKEN:
        got = f"{len(token)} characters"
        raise UserError("--token", got, f"{SHORTEST_TOKEN} or more", "make one with openssl rand -hex 16")
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
            raise UserError("--cors", repr(origin), "an origin", "write it as https://example.org, without a path")


def open_socket(listen: str | None, port: int | None) -> socket.socket:
    """Return a listening socket: on this machine only by default, on `port`, or on 8000 or any free one.

    Raises UserError for an address or port that cannot be had.
    """
    host = HOST if listen is None else listen
    reason = ""
    for candidate in [DEFAULT_PORT, 0] if port is None else [port]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as error:
            reason = str(error)
    raise UserError(f"{host}, port {port or DEFAULT_PORT}", reason, "a free port", "choose another --port or --listen")


def run_server(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl+C. The log has no prompts, and no line for a request that went well."""
    import uvicorn

    from mlc_controlnet.serve.server import Server, answered_at_the_end

    config = uvicorn.Config(
        answered_at_the_end(app),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        server_header=False,
    )
    Server(config).run(sockets=[listening])

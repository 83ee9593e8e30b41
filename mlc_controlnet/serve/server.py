"""uvicorn's server, which says what Ctrl+C waits for, and answers what it no longer waits for."""

import asyncio
import os
import socket
from http import HTTPStatus
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.answers import error_answer

ENDED = UserError("server", "its end before that of the picture", "a server that runs", "start it and ask again")


class Server(uvicorn.Server):
    """Answers the requests that it has before it ends, in as much time as it is given; Ctrl+C again ends at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle Ctrl+C and SIGTERM."""
        is_first, waiting = not self.should_exit, len(self.server_state.tasks)
        super().handle_exit(sig, frame)
        if is_first and waiting:
            requests = "1 request" if waiting == 1 else f"{waiting} requests"
            seconds = self.config.timeout_graceful_shutdown
            line = f"\nwaiting up to {seconds} s for the answers to {requests}; Ctrl+C again ends at once\n"
            os.write(2, line.encode())  # in a signal handler, where the stream may be in use

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and at once also the process that draws, which uvicorn leaves out: its picture would be waited for."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def answered_at_the_end(app: ASGIApp) -> ASGIApp:
    """Return the application with an answer, 503, to a request that the end of the server cancels."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, noting)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if has_begun:  # events of progress: the last of them is missing, which tells it
                await send({"type": "http.response.body"})
            else:
                await error_answer(scope["path"], ENDED, HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, send)

    return answering

"""A server of a small bundle, run as a user's is: uvicorn on a port of its own, asked over the network."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.pictures import to_base64

if TYPE_CHECKING:
    from mlc_controlnet.serve.job_queue import JobQueue


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Service:
    """A running server and how to ask it."""

    address: str
    queue: JobQueue

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, data, named, method=method)
        if data is not None:
            request.headers.setdefault("Content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def generate(self, **body: Any) -> Answer:
        return self.ask("POST", "/v1/generate", {"prompt": "red", "seed": 7, "control_image": ring(), **body})


@contextlib.contextmanager
def serving(*folders: Path, **options: Any) -> Iterator[Service]:
    import uvicorn

    from mlc_controlnet.serve.app import ServeOptions, create_app
    from mlc_controlnet.serve.listen import open_socket
    from mlc_controlnet.serve.models import read_models

    app = create_app(read_models(folders), ServeOptions(**options))
    with open_socket(None, 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Service(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.queue)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def service(linear_bundle) -> Iterator[Service]:
    with serving(linear_bundle.path) as running:
        yield running


@pytest.fixture(scope="session")
def patient(linear_bundle) -> Iterator[Service]:
    """A server that takes long jobs and lets one wait."""
    with serving(linear_bundle.path, limits=Limits(images=1000, waiting=1)) as running:
        yield running


def ring(size: tuple[int, int] = (24, 16)) -> str:
    """A control image as a request brings it."""
    return to_base64(png(size))


def png(size: tuple[int, int] = (24, 16), value: int = 200) -> bytes:
    content = io.BytesIO()
    picture = Image.new("RGB", size)
    picture.paste((value, value, value), (4, 4, size[0] - 4, size[1] - 4))
    picture.save(content, format="PNG")
    return content.getvalue()


def open_picture(text: str) -> Image.Image:
    import base64

    return Image.open(io.BytesIO(base64.b64decode(text)))

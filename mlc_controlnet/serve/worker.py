"""The process that draws: it owns the device and the loaded pipelines, and outlives no fault of theirs.

The server sends it one `Order` at a time over a pipe, and it answers with `Drawn` for every picture, and `Ended` or
`Failed`. Both look at a `Board` in shared memory: there the server says when to stop, and the worker how far it is. It
sends `Stepped` over the pipe only where somebody wants it: each message wakes the server, and a processor that draws
with all its cores waits for it.
"""

import ctypes
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from mlc_controlnet.errors import UserError, explain
from mlc_controlnet.runtime.png import png_bytes
from mlc_controlnet.runtime.request import GenerateRequest, Settings

if TYPE_CHECKING:
    from mlc_controlnet.runtime.denoising import Step
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline
    from mlc_controlnet.runtime.weight_store import WeightStore

GO_ON, KEEP, STOP = 0, 1, 2  # what the board tells: draw on; end with what there is; end with nothing


PACE_SECONDS = 0.05  # between two `Stepped`: eyes see no more, and each costs a picture a fraction of a millisecond


class Board(ctypes.Structure):
    """What server and worker see of each other in the middle of an order.

    Attributes:
        told: GO_ON, KEEP or STOP. The worker reads it after a step.
        asked: 1 if the worker is to send the next `Stepped`, which sets it back to 0.
        image, step, steps: as in `Stepped`; 0 before the first step.
    """

    _fields_ = tuple((name, ctypes.c_int) for name in ("told", "asked", "image", "step", "steps"))


@dataclass(frozen=True)
class Order:
    """Pictures to draw, by one model."""

    model: str
    requests: tuple[GenerateRequest, ...]
    previews: bool  # whether each `Stepped` has a picture
    tells_steps: bool = False  # whether `Stepped` comes without being asked for, at a pace that eyes follow


@dataclass(frozen=True)
class Stepped:
    """The progress after one step of one picture."""

    image: int  # 0 .. len(requests) - 1
    step: int  # 1 .. steps
    steps: int
    preview: bytes | None  # a small PNG file, one pixel a latent cell


@dataclass(frozen=True)
class Drawn:
    """A finished picture."""

    png: bytes
    settings: Settings
    notices: tuple[str, ...]
    seconds: float  # in the worker, from the request to the PNG file


@dataclass(frozen=True)
class Ended:
    """All pictures are drawn, or the order was stopped and nothing more of it is wanted."""

    stopped: bool


@dataclass(frozen=True)
class Failed:
    """The order cannot be drawn: `error` is the user's to correct; otherwise `traceback` is ours."""

    error: UserError | None
    traceback: str = ""


Answer = Stepped | Drawn | Ended | Failed


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker loads its pipelines: name -> folder, and the device."""

    bundles: Mapping[str, Path]
    device: str | None
    reduced_memory: bool


class _Stopped(Exception):
    """Ends the denoising loop: nothing of the picture is wanted."""


def run_worker(connection: Connection, board: Board, options: WorkerOptions) -> None:
    """Draw what arrives until the pipe is closed. The main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the server, which ends this process
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # TVM would import it, for seconds
    pipelines: dict[str, ControlNetPipeline] = {}
    store = _weight_store(options)
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_answer(order, pipelines, connection, board, options, store))


def _answer(
    order: Order,
    pipelines: "dict[str, ControlNetPipeline]",
    connection: Connection,
    board: Board,
    options: WorkerOptions,
    store: "WeightStore | None",
) -> Ended | Failed:
    try:
        if order.model not in pipelines:
            pipelines[order.model] = _load(order.model, options, store)
        for number, request in enumerate(order.requests):
            drawn = _draw(pipelines[order.model], number, request, order, connection, board)
            if drawn is not None:
                connection.send(drawn)
            if board.told != GO_ON:
                return Ended(stopped=board.told == STOP)
    except Exception as error:
        explained = error if isinstance(error, UserError) else explain(error)
        return Failed(explained, "" if explained else traceback.format_exc())
    return Ended(stopped=False)


def _weight_store(options: WorkerOptions) -> "WeightStore | None":
    """Return a store for several bundles. A single one needs no hashes of its weights."""
    from mlc_controlnet.runtime.weight_store import WeightStore

    return WeightStore() if len(options.bundles) > 1 else None


def _load(model: str, options: WorkerOptions, store: "WeightStore | None") -> "ControlNetPipeline":
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline

    return ControlNetPipeline.from_bundle(options.bundles[model], options.device, options.reduced_memory, store)


def _draw(
    pipeline: "ControlNetPipeline",
    number: int,
    request: GenerateRequest,
    order: Order,
    connection: Connection,
    board: Board,
) -> Drawn | None:
    """Draw one picture; return None if it was stopped and nothing of it is wanted."""
    from mlc_controlnet.runtime.call import Enough

    began = time.perf_counter()
    sent = 0.0  # when the last `Stepped` went

    def on_step(step: "Step") -> None:
        nonlocal sent
        if board.told == STOP:
            raise _Stopped
        if board.told == KEEP:
            raise Enough(step.x0)
        board.image, board.step, board.steps = number, step.index + 1, step.count
        is_due = step.index + 1 == step.count or time.monotonic() - sent >= PACE_SECONDS
        if not (board.asked or (order.tells_steps and is_due)):
            return
        board.asked, sent = 0, time.monotonic()
        preview = png_bytes(step.preview, {}) if order.previews else None
        connection.send(Stepped(number, step.index + 1, step.count, preview))

    try:
        generated = pipeline.generate(request, on_step)
    except _Stopped:
        return None
    png = png_bytes(generated.image, generated.metadata)
    return Drawn(png, generated.settings, generated.notices, time.perf_counter() - began)

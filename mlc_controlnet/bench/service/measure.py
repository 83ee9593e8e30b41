"""What a service adds to a picture, what it does with a crowd, and whether it keeps its memory.

The server runs as a user's does, in a process of its own, and is asked over the network. The picture is black: what a
control image shows does not change the time.
"""

import base64
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.machine import describe_processor
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.png import png_bytes
from mlc_controlnet.runtime.request import GenerateRequest

PROMPT = "gold circle with navy background"
TIMEOUT_SECONDS = 600
PNG = "image/png"
PAUSE_SECONDS = 0.2  # TVM's threads spin for some time after a picture; those of one process would disturb the other


@dataclass(frozen=True)
class ServiceTimes:
    """Figures of one server.

    Attributes:
        direct_ms: median of a picture, drawn in this process.
        added_ms, told_ms: medians of what the same picture takes longer over HTTP than the one before it in this
            process, without and with events of its progress.
        outside_ms: median of a request's time without the drawing, as the worker timed it. It is exact, but does not
            hold what a server that wakes up costs the drawing.
        answers: how many of `clients` got which status, and the seconds until the last had its answer.
        memory_bytes: of the server's processes after few pictures and after many.
    """

    device: str
    steps: int
    rounds: int
    direct_ms: float
    added_ms: float
    outside_ms: float
    told_ms: float
    clients: int
    answers: dict[int, int]
    crowd_seconds: float
    pictures: tuple[int, int]
    memory_bytes: tuple[int, int]

    def lines(self) -> Iterator[str]:
        """List the lines to print."""
        yield f"{self.device}; {self.steps} steps, medians of {self.rounds} rounds"
        yield f"  a picture in this process            {self.direct_ms:6.1f} ms"
        yield f"  what the service adds                {self.added_ms:+6.1f} ms"
        yield f"    of it outside of the drawing       {self.outside_ms:+6.1f} ms"
        yield f"  what it adds with events of progress {self.told_ms:+6.1f} ms"
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        yield f"  {self.clients} clients at once: {answers}; the last after {self.crowd_seconds:.1f} s"
        few, many = (
            f"{count} pictures {size / 1e6:.1f} MB"
            for count, size in zip(self.pictures, self.memory_bytes, strict=True)
        )
        yield f"  memory after {few}, after {many}: {self.memory_bytes[1] / self.memory_bytes[0] - 1:+.1%}"


def time_service(bundle: Path, steps: int, rounds: int, clients: int, pictures: tuple[int, int]) -> ServiceTimes:
    """Measure a server of one bundle.

    pictures: after how many the memory is read, first and last.

    Raises UserError if a count is none, if the bundle cannot be loaded, or on a system without /proc.
    """
    for option, count in (("--rounds", rounds), ("--clients", clients), ("--pictures", pictures[-1])):
        if count < 1:
            raise UserError(option, str(count), "1 or more", "choose another number")
    if not Path("/proc/self/status").is_file():
        raise UserError("bench serve", "a system without /proc", "Linux", "run it there")
    pipeline = ControlNetPipeline.from_bundle(bundle)
    model = pipeline.manifest.model
    black = Image.new("RGB", (model.width, model.height))
    control_images = [black] * len(pipeline.manifest.controlnets)
    request = GenerateRequest(prompt=PROMPT, seed=7, num_inference_steps=steps, control_image=control_images)
    texts = [base64.b64encode(png_bytes(image, {})).decode() for image in control_images]
    body = {"prompt": PROMPT, "seed": 7, "num_inference_steps": steps, "control_image": texts}
    with _server(bundle) as (address, process):
        served, told, direct = [], [], []
        drawing: list[float] = []  # of `served`, by the server's own clock
        for _ in range(rounds + 1):
            direct.append(_seconds(lambda: png_bytes(pipeline.generate(request).image, {})))
            served.append(_seconds(lambda: drawing.append(_ask(address, body).drawing_seconds)))
            told.append(_seconds(lambda: _ask(address, body, "text/event-stream")))
        answers, crowd_seconds = _crowd(address, body, clients)
        drawn = 2 * (rounds + 1) + answers.get(200, 0)
        memory = []
        for count in pictures:
            for _ in range(max(0, count - drawn)):
                _ask(address, body)
            drawn = max(drawn, count)
            memory.append(_memory_bytes(process))
    return ServiceTimes(
        device=describe_processor(),
        steps=steps,
        rounds=rounds,
        direct_ms=1000 * statistics.median(direct[1:]),
        added_ms=_median_difference_ms(served, direct),
        outside_ms=_median_difference_ms(served, drawing),
        told_ms=_median_difference_ms(told, direct),
        clients=clients,
        answers=answers,
        crowd_seconds=crowd_seconds,
        pictures=pictures,
        memory_bytes=(memory[0], memory[1]),
    )


def _median_difference_ms(longer: list[float], shorter: list[float]) -> float:
    """Compare neighbours, because a machine's clock drifts; the first round warms up."""
    return 1000 * statistics.median(a - b for a, b in zip(longer[1:], shorter[1:], strict=True))


@contextlib.contextmanager
def _server(bundle: Path) -> Iterator[tuple[str, int]]:
    """Start `serve` and yield its address and process id."""
    command = [sys.executable, "-m", "mlc_controlnet", "serve", "--bundle", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield line.split()[0].removesuffix("docs").rstrip("/"), process.pid
        finally:
            process.terminate()


@dataclass(frozen=True)
class _Answer:
    status: int
    drawing_seconds: float = 0.0  # by the server's own clock


def _ask(address: str, body: dict[str, Any], accept: str = PNG) -> _Answer:
    """Ask for a picture."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310  # our own server
        f"{address}/v1/generate", data, {"Content-Type": "application/json", "Accept": accept}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            content = answer.read()
            if accept == PNG:
                Image.open(io.BytesIO(content)).verify()
            timing = answer.headers.get("Server-Timing", "draw;dur=0")
            return _Answer(answer.status, float(timing.removeprefix("draw;dur=")) / 1000)
    except urllib.error.HTTPError as error:
        return _Answer(error.code)


def _crowd(address: str, body: dict[str, Any], clients: int) -> tuple[dict[int, int], float]:
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        statuses = Counter(pool.map(lambda _: _ask(address, body).status, range(clients)))
    return dict(statuses), time.perf_counter() - begin


def _seconds(run: Any) -> float:
    time.sleep(PAUSE_SECONDS)
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _memory_bytes(process: int) -> int:
    """Return the resident memory of a process and its children."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
    )
    own = int(status["VmRSS"].split()[0]) * 1024
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(_memory_bytes(int(child)) for child in children)

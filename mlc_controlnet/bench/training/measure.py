"""Times training steps: ours against diffusers' example, and the gain of each option.

Contestants take turns with a few steps per round, so that other work of the machine affects all of them. The medians
over the rounds count, and a ratio is the median of the rounds' ratios. Reading data is not measured.
"""

import json
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch

from mlc_controlnet.bench.training.contestant import Contestant, Loop
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.files import check_writable_file
from mlc_controlnet.machine import processor_name
from mlc_controlnet.train.config import PRECISIONS
from mlc_controlnet.train.process import FROZEN_DTYPES, make_accelerator

PEER, OURS, CACHED = "diffusers' example", "ours", "ours, latents cached"
PIXELS = {"circles": 128, "sd15": 512}
# Each line keeps the options of the lines above it, as in NeMo's table.
LADDER: tuple[tuple[str, dict[str, bool]], ...] = (
    ("baseline (math attention)", {"use_flash_attention": False}),
    ("+ flash attention", {"use_flash_attention": True}),
    ("+ channels-last", {"channels_last": True}),
    ("+ inductor", {"inductor": True}),
)
LARGE_BATCH = 32
# samples/s of the same lines on one A100, batch 8 and at last 32, 512 x 512: NeMo Framework User Guide 24.12,
# multimodalmodels/text2image/controlnet/perf.html
NEMO = (11.68, 16.40, 20.24, 21.52, 27.20)


@dataclass(frozen=True)
class TrainBenchSettings:
    """The training runs to measure.

    Attributes:
        model: a key of PIXELS; sd15 has the real shapes and random weights.
        batch: samples per step.
        pixels: height and width of the pictures; None: the usual size of the model.
        rounds: turns of each contestant, after a first one that does not count.
        steps: training steps per turn.
        options: also measure the gain of each option, with cached latents.
        inductor: measure torch.compile too, which compiles for minutes.
        one_by_one: run one contestant after the other and not in turns, if memory holds only one.
    """

    model: str
    batch: int
    precision: str
    rounds: int
    steps: int
    options: bool = False
    inductor: bool = False
    one_by_one: bool = False
    pixels: int | None = None

    def __post_init__(self) -> None:
        check_one_of("--model", self.model, PIXELS)
        check_one_of("--precision", self.precision, PRECISIONS)
        for name, count in (("batch", self.batch), ("rounds", self.rounds), ("steps", self.steps)):
            if count < 1:
                raise UserError(f"--{name}", str(count), "1 or more", "choose another number")
        if self.pixels is not None and (self.pixels < 64 or self.pixels % 64):
            raise UserError("--pixels", str(self.pixels), "a positive multiple of 64", "choose another size")

    def loop(self, name: str, batch: int | None = None, **options: Any) -> Loop:
        """Return a training loop with these settings and the given options."""
        pixels = PIXELS[self.model] if self.pixels is None else self.pixels
        size = self.batch if batch is None else batch
        return Loop(name, self.model, pixels, size, self.precision, **options)


@dataclass(frozen=True)
class Figures:
    """The figures of one contestant.

    Attributes:
        turns: seconds per step of each counted turn.
        peak_memory_mib: peak of the process on a processor, of allocations on a GPU.
        tflop: counted operations per sample.
    """

    name: str
    batch: int
    turns: tuple[float, ...]
    peak_memory_mib: float
    tflop: float

    @property
    def samples_per_second(self) -> float:
        """The median rate over all turns."""
        return self.batch / statistics.median(self.turns)

    def speed_over(self, other: "Figures") -> tuple[float, float, float]:
        """Return samples per second relative to the other's: the lower quartile, the median, the upper quartile."""
        share = self.batch / other.batch
        ratios = [share * theirs / ours for ours, theirs in zip(self.turns, other.turns, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return low, middle, high

    def line(self, first: "Figures") -> str:
        """Return the figures as a line of text, with the speed relative to `first`."""
        low, middle, high = self.speed_over(first)
        rate = f"{self.samples_per_second:9.2f} samples/s"
        return f"  {self.name:<34}{rate}  {middle:5.2f}x ({low:.2f} to {high:.2f})  {self.peak_memory_mib:8.0f} MiB"


def measure(settings: TrainBenchSettings, raw: Path | None = None) -> Iterator[str]:
    """Yield the lines to print: both loops, the options, and the rate relative to a large matrix product.

    Args:
        raw: a JSON file to write the time of every turn to.
    """
    if raw is not None:
        check_writable_file(raw, f"--raw {raw}")
    device = make_accelerator(settings.precision).device
    where = describe_device(device)
    yield f"{settings.model}, batch {settings.batch}, precision {settings.precision}, {where}"
    loops = _run(settings, both_loops(settings))
    for figures in loops:
        yield figures.line(loops[0])
    rungs: list[Figures] = []
    if settings.options:
        rungs = _run(settings, ladder(settings))
        yield "  the gain of each option, with cached latents; each line keeps the options above it"
        for figures in rungs:
            yield figures.line(rungs[0])
        if settings.model == "sd15":
            names = [*(name for name, _ in LADDER), f"+ batch {LARGE_BATCH}"]
            yield "  NeMo's figures on one A100, at batch 8"
            for name, rate in zip(names, NEMO, strict=True):
                yield f"  {name:<34}{rate:9.2f} samples/s  {rate / NEMO[0]:5.2f}x"
    best = max([loops[-1], *rungs], key=lambda figures: figures.samples_per_second * figures.tflop)
    reached = best.tflop * best.samples_per_second
    ceiling = matmul_ceiling(device, FROZEN_DTYPES[settings.precision])
    yield f"  {loops[-1].tflop:.4f} TFLOP per sample with cached latents; the fastest line: {reached:.3f} TFLOP/s,"
    yield f"  {reached / ceiling:.0%} of the {ceiling:.3f} TFLOP/s that a large matrix product reaches here"
    if raw is not None:
        command = shlex.join(["python", "-m", "mlc_controlnet", *sys.argv[1:]])
        about = {"command": command, "device": where, "settings": asdict(settings), "matmul_tflops": ceiling}
        turns = [asdict(figures) for figures in [*loops, *rungs]]
        raw.write_text(json.dumps({**about, "contestants": turns}, indent=1) + "\n", encoding="utf-8")
        yield f"  every turn is in {raw}"


def describe_device(device: torch.device) -> str:
    """Return for example `AMD EPYC, 1 thread, torch 2.13.0, diffusers 0.42.1`."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}"


def both_loops(settings: TrainBenchSettings) -> list[Loop]:
    """Return the training loops to compare: diffusers' example, ours, and ours with cached latents."""
    return [
        settings.loop(PEER, is_peer=True),
        settings.loop(OURS),
        settings.loop(CACHED, cached=True),
    ]


def ladder(settings: TrainBenchSettings) -> list[Loop]:
    """Return the loops of NeMo's table, one per line."""
    loops: list[Loop] = []
    so_far: dict[str, bool] = {}
    for name, change in LADDER:
        if "inductor" in change and not settings.inductor:
            continue
        so_far = {**so_far, **change}
        loops.append(settings.loop(name, cached=True, options=so_far))
    return [*loops, settings.loop(f"+ batch {LARGE_BATCH}", LARGE_BATCH, cached=True, options=so_far)]


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the TFLOP/s of a square matrix product, the best of thirty: other work of the machine slows most down."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn((n, n), device=device).to(dtype), torch.randn((n, n), device=device).to(dtype)
    seconds = []
    for _ in range(31):
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds[1:]) / 1e12


def _run(settings: TrainBenchSettings, loops: Sequence[Loop]) -> list[Figures]:
    if settings.one_by_one:
        return [figures for loop in loops for figures in take_turns([loop], settings.rounds, settings.steps)]
    return take_turns(loops, settings.rounds, settings.steps)


def take_turns(loops: Sequence[Loop], rounds: int, steps: int) -> list[Figures]:
    """Time all contestants. Only one of them works at a time."""
    with TemporaryDirectory() as folder, ExitStack() as processes:
        contestants = [
            processes.enter_context(Contestant(loop, Path(folder) / str(number))) for number, loop in enumerate(loops)
        ]
        seconds = [[contestant.seconds_per_step(steps) for contestant in contestants] for _ in range(rounds + 1)][1:]
        return [
            Figures(c.loop.name, c.loop.batch, turns, c.peak_memory_mib(), c.tflop_per_sample())
            for c, turns in zip(contestants, zip(*seconds, strict=True), strict=True)
        ]

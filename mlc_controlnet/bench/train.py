"""Time training steps: ours against diffusers' example, and what each option is worth.

All take turns, a few steps each a round; medians count. Memory is taken with each contestant alone in a process of its
own. Reading data is left out.
"""

import itertools
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlc_controlnet.bench.processor import processor_name
from mlc_controlnet.bench.random_model import random_stable_diffusion
from mlc_controlnet.bench.train_peer import make_peer_step
from mlc_controlnet.errors import UserError
from mlc_controlnet.train import fill50k
from mlc_controlnet.train.base import Base, find_base, load_base, new_controlnet
from mlc_controlnet.train.circles.drawing import draw_source, draw_target, random_circle
from mlc_controlnet.train.config import PRECISIONS, TrainConfig, from_tree
from mlc_controlnet.train.data import open_data
from mlc_controlnet.train.metrics import peak_memory_mib
from mlc_controlnet.train.trainer import FROZEN_DTYPES, Trainer, make_accelerator

PEER, OURS, CACHED = "diffusers' example", "ours", "ours, latents cached"
HINT_WIDTHS = {"circles": (8, 16, 24, 32), "sd15": (16, 32, 96, 256)}
PIXELS = {"circles": 128, "sd15": 512}
# NeMo's table: each line keeps what the lines above it switched on.
LADDER: tuple[tuple[str, dict[str, bool]], ...] = (
    ("baseline (math attention)", {"use_flash_attention": False}),
    ("+ flash attention", {"use_flash_attention": True}),
    ("+ channels-last", {"channels_last": True}),
    ("+ inductor", {"inductor": True}),
)
LARGE_BATCH = 32
Step = Callable[[], None]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        model: a key of PIXELS; sd15 has the real shapes and random weights.
        batch: samples a step.
        rounds: turns each contestant takes after the first, which is not counted.
        steps: of a turn.
        options: also measure what each option is worth, latents cached.
        inductor: among them torch.compile, which takes minutes to compile.
    """

    model: str
    batch: int
    precision: str
    rounds: int
    steps: int
    options: bool
    inductor: bool

    def __post_init__(self) -> None:
        for name, value, allowed in (("model", self.model, tuple(PIXELS)), ("precision", self.precision, PRECISIONS)):
            if value not in allowed:
                raise UserError(f"--{name}", repr(value), f"one of {', '.join(allowed)}", "pass one of these")
        for name, count in (("batch", self.batch), ("rounds", self.rounds), ("steps", self.steps)):
            if count < 1:
                raise UserError(f"--{name}", str(count), "1 or more", "choose another number")


@dataclass(frozen=True)
class Figures:
    """Of one contestant. peak_memory_mib: the process's on a processor, allocations on a GPU."""

    name: str
    batch: int
    samples_per_second: float
    peak_memory_mib: float

    def line(self, peer: float) -> str:
        rate = f"{self.samples_per_second:9.2f} samples/s"
        return f"  {self.name:<44}{rate}  {self.samples_per_second / peer:5.2f}x  {self.peak_memory_mib:8.0f} MiB"


def measure(settings: Settings) -> Iterator[str]:
    """Lines to print: both loops, then the options, then the share of the device's measured ceiling."""
    device = make_accelerator(settings.precision).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    setting = f"{settings.model}, batch {settings.batch}, precision {settings.precision}"
    yield f"{setting}, {name}{threads}, torch {torch.__version__}"
    loops = _take_turns(settings, [PEER, OURS, CACHED])
    peer = loops[0].samples_per_second
    for figures in loops:
        yield figures.line(peer)
    best = loops[-1]
    if settings.options:
        rungs = _take_turns(settings, list(_ladder(settings)))
        yield "  what options are worth, latents cached; each line keeps those above it"
        for figures in rungs:
            yield figures.line(rungs[0].samples_per_second)
        best = max([best, *rungs], key=lambda figures: figures.samples_per_second)
    work = tflop_per_sample(settings)
    reached, ceiling = work * best.samples_per_second, matmul_ceiling(device, FROZEN_DTYPES[settings.precision])
    yield f"  {work:.4f} TFLOP a sample with latents cached; the fastest line does {reached:.3f} TFLOP/s,"
    yield f"  {reached / ceiling:.0%} of the {ceiling:.3f} TFLOP/s that a large matrix product reaches here"


def tflop_per_sample(settings: Settings) -> float:
    """Counted operations of one step, forward and backward, latents cached, over its batch."""
    with TemporaryDirectory() as folder:
        step = _make_step(settings, CACHED, Path(folder))
        with FlopCounterMode(display=False) as counter:
            step()
    return counter.get_total_flops() / settings.batch / 1e12


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a square matrix product, the best of thirty: beside other work most are too slow."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn((n, n), device=device).to(dtype), torch.randn((n, n), device=device).to(dtype)
    seconds = []
    for _ in range(31):
        _synchronize(device)
        began = time.perf_counter()
        torch.mm(a, b)
        _synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds[1:]) / 1e12


def _ladder(settings: Settings) -> dict[str, tuple[dict[str, Any], int]]:
    """Name of a rung -> its model options and its batch."""
    rungs: dict[str, tuple[dict[str, Any], int]] = {}
    so_far: dict[str, bool] = {}
    for name, change in LADDER:
        if "inductor" in change and not settings.inductor:
            continue
        so_far = {**so_far, **change}
        rungs[name] = (so_far, settings.batch)
    rungs[f"+ batch {LARGE_BATCH}"] = (so_far, LARGE_BATCH)
    return rungs


def _take_turns(settings: Settings, names: list[str]) -> list[Figures]:
    device = make_accelerator(settings.precision).device
    with TemporaryDirectory() as folder:
        steps = [_make_step(settings, name, Path(folder) / str(number)) for number, name in enumerate(names)]
        seconds: list[list[float]] = [[] for _ in names]
        for turn in range(settings.rounds + 1):
            for step, taken in zip(steps, seconds, strict=True):
                _synchronize(device)
                began = time.perf_counter()
                for _ in range(settings.steps):
                    step()
                _synchronize(device)
                if turn:
                    taken.append((time.perf_counter() - began) / settings.steps)
    del steps
    batches = [_ladder(settings).get(name, ({}, settings.batch))[1] for name in names]
    return [
        Figures(name, batch, batch / statistics.median(taken), _memory_alone(settings, name))
        for name, batch, taken in zip(names, batches, seconds, strict=True)
    ]


def _memory_alone(settings: Settings, name: str) -> float:
    """Peak memory of two steps in a process of its own, MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (settings, name))


def _measure_memory(settings: Settings, name: str) -> float:
    with TemporaryDirectory() as folder:
        step = _make_step(settings, name, Path(folder))
        for _ in range(2):
            step()
        return peak_memory_mib(make_accelerator(settings.precision).device)


def _make_step(settings: Settings, name: str, folder: Path) -> Step:
    """A contestant's step, on a batch that is read once."""
    rungs = _ladder(settings)
    options, batch = rungs.get(name, ({}, settings.batch))
    cached = name == CACHED or name in rungs
    config = _config(settings, folder, options, batch, cached)
    accelerator, base = make_accelerator(settings.precision), _base(settings.model)
    if name == PEER:
        samples = next(iter(open_data(config).stream(config, 0, 1)))
        controlnet = new_controlnet(base.unet, 3, HINT_WIDTHS[settings.model])
        return make_peer_step(base, controlnet, samples, accelerator, FROZEN_DTYPES[settings.precision])
    trainer = Trainer(config, accelerator, _quiet, base)
    samples = next(iter(trainer.stream))
    never = threading.Event()
    batches = itertools.repeat(samples)

    def step() -> None:
        trainer.take_step(batches, never)

    return step


def _base(model: str) -> Base:
    return random_stable_diffusion() if model == "sd15" else load_base(find_base(model))


def _config(settings: Settings, folder: Path, options: dict[str, Any], batch: int, cached: bool) -> TrainConfig:
    pixels = PIXELS[settings.model]
    rng = np.random.default_rng(0)
    circles = [random_circle(rng, pixels) for _ in range(batch + 1)]
    examples = (fill50k.Example(draw_source(c, pixels), draw_target(c, pixels), c.prompt) for c in circles)
    fill50k.write(folder / "data", examples)
    return from_tree(
        {
            "model": {"hint_widths": list(HINT_WIDTHS[settings.model]), **options},
            "data": {
                "path": str(folder / "data"),
                "height": pixels,
                "width": pixels,
                "cache": str(folder / "cache") if cached else None,
            },
            "trainer": {"max_steps": 10**9, "batch_size": batch, "precision": settings.precision},
            "log": {"tensorboard": False, "images": 1},
            "out": str(folder / "out"),
        }
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quiet(line: str) -> None:
    pass

"""Runs a training loop in a process of its own, which takes steps on request."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mlc_controlnet.bench.own_process import OwnProcess
from mlc_controlnet.bench.training.peer import make_peer_step
from mlc_controlnet.bench.training.random_model import random_stable_diffusion
from mlc_controlnet.train.base import Base, find_base, load_base, new_controlnet
from mlc_controlnet.train.circles.data_set import generate_circles
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.config_file import from_tree
from mlc_controlnet.train.data.loader import open_data
from mlc_controlnet.train.metrics import peak_memory_mib
from mlc_controlnet.train.process import FROZEN_DTYPES, make_accelerator, set_up_process
from mlc_controlnet.train.trainer import Trainer

HINT_WIDTHS = {"circles": (8, 16, 24, 32), "sd15": (16, 32, 96, 256)}
Step = Callable[[], None]


@dataclass(frozen=True)
class Loop:
    """The training loop of a contestant.

    Attributes:
        model: circles, or sd15, which has the real shapes and random weights.
        pixels: height and width of the pictures.
        batch: samples per step.
        is_peer: run diffusers' example instead of our loop.
        cached: read latents and text states from a cache.
        options: options of the section `model` of our configuration.
    """

    name: str
    model: str
    pixels: int
    batch: int
    precision: str
    is_peer: bool = False
    cached: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Contestant(OwnProcess):
    """The process of one loop. The end of a `with` block ends it.

    Args:
        folder: for its data; no other contestant may use it.
    """

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        super().__init__(loop.name)
        self.call(_start, loop, folder)

    def seconds_per_step(self, steps: int) -> float:
        """Take `steps` steps and return their mean time."""
        seconds: float = self.call(_time_steps, steps)
        return seconds

    def peak_memory_mib(self) -> float:
        """Return the peak so far: of the process on a processor, of allocations on a GPU."""
        mebibytes: float = self.call(_peak_memory)
        return mebibytes

    def tflop_per_sample(self) -> float:
        """Return the counted operations of one step, forward and backward, divided by its batch."""
        work: float = self.call(_count_work)
        return work / self.loop.batch


# The code below runs in the contestant's process, which has one step function.
_step: Step
_device: torch.device


def _start(loop: Loop, folder: Path) -> None:
    global _step, _device
    _device = make_accelerator(loop.precision).device
    _step = make_step(loop, folder)


def _time_steps(steps: int) -> float:
    _synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        _step()
    _synchronize()
    return (time.perf_counter() - began) / steps


def _peak_memory() -> float:
    return peak_memory_mib(_device)


def _count_work() -> float:
    return tflop_of(_step)


def _synchronize() -> None:
    if _device.type == "cuda":
        torch.cuda.synchronize(_device)


def tflop_of(step: Step) -> float:
    """Return the operations of one step, forward and backward, in TFLOP; it takes the step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e12


def make_step(loop: Loop, folder: Path) -> Step:
    """Return a function that takes one step of `loop`, on a batch that is read once. This sets up the process."""
    config = _config(loop, folder)
    base = _base(loop.model)
    if loop.is_peer:
        samples = next(iter(open_data(config).stream(config, 0, 1)))
        controlnet = new_controlnet(base.unet, 3, HINT_WIDTHS[loop.model])
        accelerator = make_accelerator(loop.precision)
        return make_peer_step(base, controlnet, samples, accelerator, FROZEN_DTYPES[loop.precision])
    accelerator = set_up_process(config.trainer)
    trainer = Trainer(config, accelerator, _quiet, base)
    batches = itertools.repeat(next(iter(trainer.stream)))
    never = threading.Event()

    def step() -> None:
        trainer.take_step(batches, never)

    return step


def _base(model: str) -> Base:
    return random_stable_diffusion() if model == "sd15" else load_base(find_base(model))


def _config(loop: Loop, folder: Path) -> TrainConfig:
    generate_circles(folder / "data", loop.batch + 1, seed=0, log=_quiet, pixels=loop.pixels)
    return from_tree(
        {
            "model": {"hint_widths": list(HINT_WIDTHS[loop.model]), **loop.options},
            "data": {
                "path": str(folder / "data"),
                "height": loop.pixels,
                "width": loop.pixels,
                "cache": str(folder / "cache") if loop.cached else None,
            },
            "trainer": {"max_steps": 10**9, "batch_size": loop.batch, "precision": loop.precision},
            "log": {"tensorboard": False, "images": 1},
            "out": str(folder / "out"),
        }
    )


def _quiet(line: str) -> None:
    pass

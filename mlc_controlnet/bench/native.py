"""Time native bundles.

Bundles take turns, one picture each a round, so that a machine which slows down slows all of them. The medians are
reported; the first picture of each bundle, which warms caches and threads up, is not counted.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from PIL import Image, ImageDraw

from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.components import CONTROLNET, TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.pipeline import ControlNetPipeline

PROMPT = "gold circle with navy background"


@dataclass(frozen=True)
class Figures:
    """Medians for one bundle."""

    bundle: Bundle
    device: str
    steps: int
    guidance_scale: float
    picture_seconds: float
    slowest_picture_seconds: float
    component_ms: dict[str, float]  # one call

    def lines(self) -> Iterator[str]:
        yield f"{self.bundle.path}, {self.device}"
        guided = f"guidance {self.guidance_scale:g}" if self.guidance_scale > 1 else "no guidance"
        seconds = f"{self.picture_seconds:.2f} s (slowest {self.slowest_picture_seconds:.2f} s)"
        yield f"  picture, {self.steps} steps, {guided:<14} {seconds}"
        for name, milliseconds in self.component_ms.items():
            yield f"  {name:<14} {milliseconds:8.2f} ms"


def measure_bundles(paths: Sequence[Path], device: str | None, steps: int, rounds: int) -> list[Figures]:
    """Draw `rounds` pictures with each bundle, in turn, then time each component.

    Raises UserError for bundles that can not be loaded, and for numbers of steps or rounds that can not be.
    """
    if rounds < 1:
        raise UserError("rounds", str(rounds), "1 or more", "choose another number")
    pipelines = [ControlNetPipeline.from_bundle(read_bundle(path), device) for path in paths]
    controls = [_ring(pipeline) for pipeline in pipelines]
    seconds: list[list[float]] = [[] for _ in pipelines]
    for round_number in range(rounds + 1):
        for pipeline, control, taken in zip(pipelines, controls, seconds, strict=True):
            started = time.perf_counter()
            pipeline(PROMPT, control, num_inference_steps=steps, seed=round_number)
            if round_number > 0:
                taken.append(time.perf_counter() - started)
    return [
        Figures(
            bundle=pipeline.engine.bundle,
            device=describe_device(pipeline.engine),
            steps=steps,
            guidance_scale=pipeline.manifest.defaults.guidance_scale,
            picture_seconds=statistics.median(taken),
            slowest_picture_seconds=max(taken),
            component_ms=_time_components(pipeline.engine, rounds),
        )
        for pipeline, taken in zip(pipelines, seconds, strict=True)
    ]


def describe_device(engine: Engine) -> str:
    """`llvm float32 on AMD EPYC 7B13, 2 of 4 logical processors`: what a figure must be read with."""
    kind = f"{engine.library.device} {engine.library.dtype}"
    if engine.library.device != "llvm":
        return f"{kind} on {engine.device.device_name}"
    threads = tvm.get_global_func("runtime.NumThreads")()
    return f"{kind} on {_processor()}, {threads} of {os.cpu_count()} logical processors"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _ring(pipeline: ControlNetPipeline) -> Image.Image:
    """A white ring on black, of the model's size."""
    width, height = pipeline.manifest.model.width, pipeline.manifest.model.height
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), outline="white")
    return image


def _time_components(engine: Engine, rounds: int) -> dict[str, float]:
    """Median milliseconds of one call, transfers between host and device included."""
    arrays = {
        spec.name: np.zeros(spec.shape, spec.dtype)
        for component in engine.bundle.manifest.components.values()
        for spec in component.inputs
        if spec.dtype in ("float32", "int32")
    }
    sample, control_image = arrays["sample"], arrays["control_image"]
    context = engine.text_encoder(arrays["token_ids"])
    residuals = engine.controlnet(sample, 500.0, context, control_image, 1.0)
    calls: dict[str, Callable[[], Any]] = {
        TEXT_ENCODER: lambda: engine.text_encoder(arrays["token_ids"]),
        CONTROLNET: lambda: engine.controlnet(sample, 500.0, context, control_image, 1.0),
        UNET: lambda: engine.unet(sample, 500.0, context, residuals),
        VAE_DECODER: lambda: engine.vae_decoder(arrays["latents"]),
        VAE_ENCODER: lambda: engine.vae_encoder(arrays["image"]),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            engine.synchronize()
            if round_number > 0:
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(milliseconds) for name, milliseconds in taken.items()}

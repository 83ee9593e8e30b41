"""Time whole pictures drawn by native bundles and by diffusers.

The contestants take turns and draw one picture each per round, so a machine that slows down affects all of them. The
medians are reported. The first picture of each contestant warms up caches and threads and does not count.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from PIL import Image, ImageDraw

from mlc_controlnet.bench.pictures.own_time import ComponentClock
from mlc_controlnet.components import CONTROL_EMBEDDING, CONTROLNET, TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.machine import processor_name
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.request import GenerateRequest

PROMPT = "gold circle with navy background"


@dataclass(frozen=True)
class PictureContestant:
    """A bundle or a pipeline that draws a picture.

    Attributes:
        draw: draws one picture.
        engine: the engine whose components are timed one by one; None for diffusers.
    """

    name: str
    device: str
    guidance_scale: float
    draw: Callable[[], Any]
    engine: Engine | None = None


@dataclass(frozen=True)
class PictureTimes:
    """Medians of one contestant.

    Attributes:
        component_ms: component -> milliseconds per call; empty for diffusers.
        own_share: the pipeline's own time as a share of its components' time; None for diffusers and for a GPU.
    """

    contestant: PictureContestant
    steps: int
    picture_seconds: float
    slowest_picture_seconds: float
    component_ms: dict[str, float]
    own_share: float | None = None

    def lines(self) -> Iterator[str]:
        """List the lines to print."""
        yield f"{self.contestant.name}, {self.contestant.device}"
        guidance = self.contestant.guidance_scale
        guided = f"guidance {guidance:g}" if guidance > 1 else "no guidance"
        seconds = f"{self.picture_seconds:.2f} s (slowest {self.slowest_picture_seconds:.2f} s)"
        yield f"  picture, {self.steps} steps, {guided:<14} {seconds}"
        for name, milliseconds in self.component_ms.items():
            yield f"  {name:<14} {milliseconds:8.2f} ms"
        if self.own_share is not None:
            yield f"  besides the components: {self.own_share:.1%} of their time"


def time_pictures(
    bundles: Sequence[Path], device: str | None, steps: int, rounds: int, diffusers_model: Path | None = None
) -> list[PictureTimes]:
    """Draw `rounds` pictures with each bundle and with diffusers in turns, then run the bundles' components in turns.

    device: the device that the bundles run on; None for the one they were built for. steps: denoising steps.
    diffusers_model: a folder in diffusers' layout; None: do not time diffusers.

    Raises UserError if a bundle or model cannot be loaded, or if `steps` or `rounds` is out of range.
    """
    if rounds < 1:
        raise UserError("rounds", str(rounds), "1 or more", "choose another number")
    pipelines = [ControlNetPipeline.from_bundle(path, device) for path in bundles]
    for pipeline in pipelines:
        if pipeline.manifest.inpaints:
            path = str(pipeline.engine.bundle.path)
            raise UserError(path, "an inpainting model", "one that draws from a prompt", "choose another bundle")
    contestants = [_native(pipeline, steps) for pipeline in pipelines]
    if diffusers_model is not None:
        contestants.append(_diffusers(diffusers_model, pipelines[0], steps))
    seconds = _take_turns([contestant.draw for contestant in contestants], rounds)
    components = _time_components([pipeline.engine for pipeline in pipelines], rounds)
    return [
        PictureTimes(
            contestant=contestant,
            steps=steps,
            picture_seconds=statistics.median(taken),
            slowest_picture_seconds=max(taken),
            component_ms=of_components,
            own_share=_own_share(contestant, rounds),
        )
        for contestant, taken, of_components in zip(contestants, seconds, [*components, {}], strict=False)
    ]


def _own_share(contestant: PictureContestant, rounds: int) -> float | None:
    """Return the median of `rounds` pictures."""
    if contestant.engine is None or contestant.engine.library.device != "llvm":
        return None
    clock = ComponentClock(contestant.engine)
    return statistics.median(clock.own_share(contestant.draw) for _ in range(rounds))


def describe_device(engine: Engine) -> str:
    """Describe the device that runs a bundle, for example `llvm float32 on AMD EPYC, 2 threads`."""
    kind = f"{engine.library.device} {engine.library.dtype}"
    if engine.library.device != "llvm":
        return f"{kind} on {engine.device.device_name}"
    return f"{kind} on {processor_name()}, {tvm.get_global_func('runtime.NumThreads')()} threads"


def _native(pipeline: ControlNetPipeline, steps: int) -> PictureContestant:
    request = GenerateRequest(prompt=PROMPT, num_inference_steps=steps, control_image=_ring(pipeline))
    return PictureContestant(
        name=str(pipeline.engine.bundle.path),
        device=describe_device(pipeline.engine),
        guidance_scale=pipeline.resolve(request).guidance_scale,
        draw=lambda: pipeline.generate(request),
        engine=pipeline.engine,
    )


def _diffusers(model: Path, pipeline: ControlNetPipeline, steps: int) -> PictureContestant:
    """Return a function with which diffusers draws the same picture as `pipeline`."""
    from mlc_controlnet.bench.pictures.diffusers_peer import describe_peer, load_peer

    control_image, guidance_scale = _ring(pipeline), pipeline.manifest.defaults.guidance_scale
    draw = load_peer(model)
    return PictureContestant(
        name=str(model),
        device=f"{describe_peer()} on {processor_name()}",
        guidance_scale=guidance_scale,
        draw=lambda: draw(PROMPT, control_image, steps, guidance_scale),
    )


def _ring(pipeline: ControlNetPipeline) -> Image.Image:
    """Return a white ring on black, in the model's picture size."""
    width, height = pipeline.manifest.model.width, pipeline.manifest.model.height
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), outline="white")
    return image


def _take_turns(calls: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Return the seconds of each call in every round except the first."""
    seconds: list[list[float]] = [[] for _ in calls]
    for round_number in range(rounds + 1):
        for call, taken in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if round_number > 0:
                taken.append(time.perf_counter() - started)
    return seconds


def _time_components(engines: Sequence[Engine], rounds: int) -> list[dict[str, float]]:
    """Return each engine's median milliseconds per call of a component, including transfers between host and device.

    The engines take turns, because a processor's clock changes within seconds.
    """
    calls = [_component_calls(engine) for engine in engines]
    taken = iter(_take_turns([call for of_engine in calls for call in of_engine.values()], rounds))
    return [{name: 1000 * statistics.median(next(taken)) for name in of_engine} for of_engine in calls]


def _component_calls(engine: Engine) -> dict[str, Callable[[], Any]]:
    """Return a call of each component, which returns when the device has finished."""
    arrays = {
        spec.name: np.zeros(spec.shape, spec.dtype)
        for component in engine.bundle.manifest.components.values()
        for spec in component.inputs
        if spec.dtype in ("float32", "int32")
    }
    sample, control_image = arrays["sample"], arrays["control_image"]
    context = engine.text_encoder(arrays["token_ids"])
    controlnet, scales = engine.bundle.manifest.controlnets[0], [1.0] * len(engine.bundle.manifest.residuals)
    control = engine.control_embedding(control_image, controlnet)
    residuals = engine.controlnet(sample, 500.0, context, control, scales)
    calls: dict[str, Callable[[], Any]] = {
        TEXT_ENCODER: lambda: engine.text_encoder(arrays["token_ids"]),
        CONTROL_EMBEDDING: lambda: engine.control_embedding(control_image, controlnet),
        CONTROLNET: lambda: engine.controlnet(sample, 500.0, context, control, scales),
        UNET: lambda: engine.unet(sample, 500.0, context, residuals),
        VAE_DECODER: lambda: engine.vae_decoder(arrays["latents"]),
        VAE_ENCODER: lambda: engine.vae_encoder(arrays["image"]),
    }

    def finished(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            call()
            engine.synchronize()

        return run

    return {name: finished(call) for name, call in calls.items()}

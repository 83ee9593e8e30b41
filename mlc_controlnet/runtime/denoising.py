"""The denoising loop: from noise, or a noised picture, to latents.

Twin: web/src/engine/denoising.ts, the same functions in the same order.
"""

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.manifest import LatentPreview
from mlc_controlnet.components import PREVIEW_DECODER, TEXT_ENCODER, UNET
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.controls import Control
from mlc_controlnet.runtime.deepcache import DeepCache
from mlc_controlnet.runtime.engine import Context, DeepFeature, Engine, Residuals
from mlc_controlnet.runtime.latents import blend_latents
from mlc_controlnet.runtime.noise import FIRST_STEP_STREAM, standard_normal
from mlc_controlnet.runtime.request import Settings
from mlc_controlnet.runtime.samplers.row import Row, Schedule, State, advance


@dataclass(frozen=True)
class Kept:
    """The part of a picture that a four-channel UNet keeps: after every step it is put back, noised as the step is."""

    latents: np.ndarray  # float32 [1, C, h, w]: of the picture
    noise: np.ndarray  # float32 [1, C, h, w], standard normal: the noise that the drawing starts from
    mask: np.ndarray  # float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0


@dataclass(frozen=True)
class Conditions:
    """The inputs that are the same for every step of the denoising loop."""

    contexts: Sequence[Context]  # the prompt's; with guidance, the negative prompt's before it
    controls: Sequence[Control] = ()
    extra_channels: Sequence[np.ndarray] = ()  # of an inpainting UNet's sample, after the latents: float32 [1, _, h, w]
    kept: Kept | None = None  # of a picture that a four-channel UNet repaints in part


@dataclass(frozen=True)
class Step:
    """The state after one step of the denoising loop."""

    index: int  # 0 .. count - 1
    count: int
    timestep: float
    x: np.ndarray  # float32 [1, C, h, w]: the sample after this step
    x0: np.ndarray  # float32 [1, C, h, w]: the final latents as this step predicts them
    latent_preview: LatentPreview
    preview_decoder: Callable[[np.ndarray], np.ndarray] | None = None  # the engine's, if the bundle has one

    @cached_property
    def preview(self) -> Image.Image:
        """x0 as a small RGB picture, w x h, one pixel per latent cell; computed on first access, without the VAE."""
        weight, bias = np.array(self.latent_preview.weight), np.array(self.latent_preview.bias)
        rgb = np.einsum("rc,chw->hwr", weight, self.x0[0]) + bias  # [h, w, 3]
        return to_picture(rgb)

    @cached_property
    def decoded_preview(self) -> Image.Image:
        """x0 as a whole picture, W x H, by the preview decoder on first access; `preview` in a bundle without one."""
        if self.preview_decoder is None:
            return self.preview
        image = self.preview_decoder(self.x0)  # [1, 3, H, W]
        return to_picture(image[0].transpose(1, 2, 0).astype(np.float64) / 2 + 0.5)


def denoise(
    engine: Engine, settings: Settings, schedule: Schedule, conditions: Conditions, x: np.ndarray
) -> Generator[Step, np.ndarray | None, None]:
    """Run the denoising loop. It yields after every step, so the caller can show progress, preview or cancel.

    Latents that the caller sends replace the sample after the step. The noise of step i is stream FIRST_STEP_STREAM + i
    of the seed.
    """
    manifest = engine.bundle.manifest
    decoder = engine.preview_decoder if PREVIEW_DECODER in manifest.components else None
    rows, state = schedule.rows, State()
    # Once per picture, if a step needs them.
    zero_residuals = functools.cache(lambda: engine.zero_residuals(settings.height, settings.width))
    cache = DeepCache(settings.deepcache_interval)
    for index, row in enumerate(rows):
        scaled_x = (x.astype(np.float64) * row.input_scale).astype(np.float32)
        active = [control for control in conditions.controls if control.unit.is_active(index, len(rows))]
        sample = np.concatenate([scaled_x, *conditions.extra_channels], axis=1)
        if cache.is_shallow(active):
            outputs = cache.predict(engine, sample, row.timestep, conditions.contexts, settings.guidance_scale)
        else:
            cache.release()
            residuals = _control(engine, scaled_x, row.timestep, conditions.contexts, active, zero_residuals)
            pairs = _predict(engine, sample, row.timestep, conditions.contexts, residuals, settings.guidance_scale)
            outputs = [output for output, _ in pairs]
            cache.keep(active, residuals, [feature for _, feature in pairs])
        _check_outputs(conditions, residuals, outputs, f"step {index + 1} of {len(rows)}")
        m = guide(outputs, settings.guidance_scale, settings.guidance_rescale)
        draw_noise = functools.partial(standard_normal, x.shape, settings.seed, FIRST_STEP_STREAM + index)
        x, x0, state = advance(row, state, x, m, draw_noise)
        if conditions.kept is not None:
            x = _put_back(x, conditions.kept, rows[index + 1] if index + 1 < len(rows) else None)
        replaced = yield Step(index, len(rows), row.timestep, x, x0, manifest.latent_preview, decoder)
        x = x if replaced is None else replaced


def guide(outputs: Sequence[np.ndarray], guidance_scale: float, guidance_rescale: float = 0.0) -> np.ndarray:
    """Apply classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m, float64.

    `guidance_rescale` is the share of m that gets the prompt's standard deviation (arXiv 2305.08891, section 3.4).
    """
    if len(outputs) == 1:
        return outputs[0].astype(np.float64)
    negative, positive = (output.astype(np.float64) for output in outputs)
    m = negative + guidance_scale * (positive - negative)
    deviation = _deviation(m)
    if guidance_rescale == 0 or deviation == 0:
        return m
    return m * (guidance_rescale * (_deviation(positive) / deviation) + (1 - guidance_rescale))


def _deviation(values: np.ndarray) -> float:
    """Return the standard deviation around the mean of all values."""
    return float(values.std())


def add_noise(row: Row, latents: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return latents as they are at the start of a step, float32: diffusers' `scheduler.add_noise`."""
    return (row.signal_scale * latents.astype(np.float64) + row.noise_scale * noise.astype(np.float64)).astype(
        np.float32
    )


def to_picture(rgb: np.ndarray) -> Image.Image:
    """Turn [H, W, 3] in 0..1 into RGB of 8 bits; values outside are clipped."""
    return Image.fromarray(np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8))


def check_finite(component: str, values: np.ndarray, where: str) -> None:
    """Raise UserError if a component returned NaN or infinity."""
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise UserError(
            f"{component}, {where}",
            f"NaN or infinity in {broken} of {values.size} numbers",
            "finite numbers",
            "try another seed; if the error remains, verify the bundle with python -m mlc_controlnet verify, "
            "or use its float32 library",
        )


def _control(
    engine: Engine,
    scaled_x: np.ndarray,
    timestep: float,
    contexts: Sequence[Context],
    active: Sequence[Control],
    zero_residuals: Callable[[], Residuals],
) -> list[Residuals]:
    """Return the residuals for each context: the sum of those ControlNets that affect it, or zeros."""
    residuals = []
    for i, context in enumerate(contexts):
        is_negative = i < len(contexts) - 1
        made = (
            engine.controlnet(scaled_x, timestep, context, control.embedding, control.unit.residual_scales)
            for control in active
            if control.affects(is_negative)
        )
        residuals.append(_sum(engine, made) or zero_residuals())
    return residuals


def _sum(engine: Engine, residuals: Iterable[Residuals]) -> Residuals | None:
    """Add residuals; None if there are none. At most two sets are on the device at a time, and their sum."""
    total = None
    for one in residuals:
        total = one if total is None else engine.residual_sum(total, one)
    return total


def _predict(
    engine: Engine,
    sample: np.ndarray,
    timestep: float,
    contexts: Sequence[Context],
    residuals: Sequence[Residuals],
    guidance_scale: float,
) -> list[tuple[np.ndarray, DeepFeature | None]]:
    """Return the UNet's output for each context, float32 [1, C, h, w], and its deep feature."""
    # One call of batch 2 would read the weights once, for two thirds more WGSL: docs/architecture.md has the figures.
    pairs = zip(contexts, residuals, strict=True)
    return [engine.unet_and_feature(sample, timestep, context, residual, guidance_scale) for context, residual in pairs]


def _put_back(x: np.ndarray, kept: Kept, following: Row | None) -> np.ndarray:
    """Put the kept part of the picture back, noised for the following row; after the last row, without noise."""
    latents = kept.latents if following is None else add_noise(following, kept.latents, kept.noise)
    return blend_latents(x, latents, kept.mask)


def _check_outputs(
    conditions: Conditions, residuals: Sequence[Residuals], outputs: Sequence[np.ndarray], where: str
) -> None:
    """Raise UserError if an output is not finite. The error names the first component that returned such numbers."""
    for context, residual, output in zip(conditions.contexts, residuals, outputs, strict=True):
        if np.isfinite(output).all():
            continue
        # The inputs are copied to the host only now: to read them in every step would cost time.
        check_finite(TEXT_ENCODER, context.tensor.numpy(), where)
        for control in conditions.controls:
            check_finite(control.unit.controlnet.control_embedding, control.embedding.tensor.numpy(), where)
        controlnets = " + ".join(control.unit.controlnet.controlnet for control in conditions.controls)
        for tensor in residual.tensors:
            check_finite(controlnets, tensor.numpy(), where)
        check_finite(UNET, output, where)

"""The arithmetic of latents around the denoising loop: where it starts, what it keeps, and a larger start.

Twin: web/src/engine/latents.ts.
"""

import math
from typing import Any

import numpy as np

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.option_checks import check_upscaler

CUBIC_A = -0.75  # the parameter of torch's cubic convolution


def first_step(num_inference_steps: int, strength: float) -> int:
    """Return the index of the first step that runs, as diffusers' `get_timesteps`: 0 for strength 1.

    The steps before it are left out; for strength 0 these are all.
    """
    return num_inference_steps - min(math.trunc(num_inference_steps * strength), num_inference_steps)


def check_latents(subject: str, latents: Any, manifest: Manifest, remedy: str) -> np.ndarray:
    """Return latents as float32 [1, C, h, w]. Raises UserError for another shape, NaN and infinity."""
    model = manifest.model
    cells = (model.height // model.vae_scale_factor, model.width // model.vae_scale_factor)
    shape = (1, model.latent_channels, *cells)
    if np.shape(latents) != shape or not np.isfinite(latents).all():
        got = f"{list(np.shape(latents))}" + ("" if np.shape(latents) != shape else " with NaN or infinity")
        raise UserError(subject, got, f"{list(shape)} of finite numbers", remedy)
    return np.asarray(latents, np.float32)


def blend_latents(x: np.ndarray, kept: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return x where the mask is 1 and `kept` where it is 0: the latents of a four-channel UNet after a step.

    x, kept: float32 [1, C, h, w], as is the result; mask: float32 [1, 1, h, w]. `kept` are the picture's latents with
    the noise of the next step's timestep; after the last step without noise. This is diffusers'
    StableDiffusionControlNetInpaintPipeline.
    """
    return ((1 - mask) * kept + mask * x).astype(np.float32)


def upscale_latents(latents: np.ndarray, height: int, width: int, mode: str = "bilinear") -> np.ndarray:
    """Resample latents for hires fix, as torch.nn.functional.interpolate does with `align_corners` false.

    latents: float32 [1, C, h, w]; the result is float32 [1, C, height, width]. Computes in float64.

    Raises UserError for a mode that is not in UPSCALE_MODES.
    """
    check_upscaler("latent upscale mode", mode)
    rows = _resample(latents.astype(np.float64), height, mode, axis=2)
    return _resample(rows, width, mode, axis=3).astype(np.float32)


def _resample(x: np.ndarray, length: int, mode: str, axis: int) -> np.ndarray:
    """Return float64 with `length` cells along the axis: each a weighted sum of a few cells of x."""
    count = x.shape[axis]
    shape = [1, 1, 1, 1]
    shape[axis] = length
    taps = [_taps(i, length, count, mode) for i in range(length)]
    total = np.zeros(())
    for cells, weights in zip(np.array([t[0] for t in taps]).T, np.array([t[1] for t in taps]).T, strict=True):
        total = total + weights.reshape(shape) * x.take(cells, axis)
    return total


def _taps(index: int, length: int, count: int, mode: str) -> tuple[list[int], list[float]]:
    """Return the cells, of `count`, that cell `index` of `length` is computed from, and their weights."""
    if mode in ("nearest", "nearest-exact"):
        begin = index + 0.5 if mode == "nearest-exact" else index
        cell = math.floor(np.float32(begin) * np.float32(count / length))  # torch rounds to float32 before floor
        return [min(cell, count - 1)], [1.0]
    center = (index + 0.5) * count / length - 0.5
    if mode == "bilinear":
        center = max(center, 0.0)
        cell = math.floor(center)
        weight = center - cell
        return [cell, min(cell + 1, count - 1)], [1 - weight, weight]
    cell = math.floor(center)
    cells = [min(max(cell + i, 0), count - 1) for i in range(-1, 3)]
    return cells, [_cubic(abs(center - cell - i)) for i in range(-1, 3)]


def _cubic(distance: float) -> float:
    """Return the weight of a cell for cubic convolution (Keys, IEEE Trans. ASSP 29(6), 1981), up to a distance of 2."""
    a, t = CUBIC_A, distance
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((t - 5) * t + 8) * t * a - 4 * a

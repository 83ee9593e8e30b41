"""Hires fix: draw a picture at one of the bundle's sizes, and from its enlarged latents once more at a larger one.

The first pass decides on the composition, at a size near that of the training; the second adds detail. The options are
those of Stable Diffusion web UI's "Hires. fix" with a latent upscaler, except that `hires_strength` says which share of
the steps runs, as `strength` does. Like `request.py`, this module imports no numpy. Twin: web/src/engine/hires.ts.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.variant_options import check_size

if TYPE_CHECKING:
    from mlc_controlnet.runtime.request import GenerateRequest, Settings

HIRES_STRENGTH = 0.7  # sd-webui's default


def check_hires(settings: "Settings", request: "GenerateRequest", manifest: Manifest) -> None:
    """Raise UserError if the bundle lacks the larger size, there is a mask, or an option of hires fix stands alone."""
    if settings.hires_scale is None:
        for name in ("hires_strength", "hires_steps", "hires_upscaler"):
            if getattr(settings, name) is not None:
                remedy = "pass both, or leave it out"
                raise UserError(name.replace("_", " "), "one without a hires scale", "both", remedy)
        return
    check_size("size of hires fix", *hires_size(settings), manifest)
    if request.mask_image is not None:
        remedy = "repaint first, then pass the result as image with hires_scale"
        raise UserError("hires scale", "a mask image beside it", "no mask", remedy)


def hires_size(settings: "Settings") -> tuple[int, int]:
    """Return height and width of the second pass: whole pixels, the halves of them rounded up."""
    assert settings.hires_scale is not None
    height, width = (math.floor(side * settings.hires_scale + 0.5) for side in (settings.height, settings.width))
    return height, width


def hires_settings(settings: "Settings") -> "Settings":
    """Return the settings of the second pass: img2img from the enlarged latents, with the seed of the first pass."""
    assert settings.hires_strength is not None and settings.hires_steps is not None, "resolve fills them in"
    height, width = hires_size(settings)
    return dataclasses.replace(
        settings,
        height=height,
        width=width,
        num_inference_steps=settings.hires_steps,
        strength=settings.hires_strength,
        timesteps=None,
        sigmas=None,
        hires_scale=None,
    )

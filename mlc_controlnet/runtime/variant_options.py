"""The options that a bundle must be built for: picture sizes, hires fix and DeepCache.

Twin: web/src/engine/variant_options.ts.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import UNET_SHALLOW
from mlc_controlnet.errors import UserError, check_one_of

if TYPE_CHECKING:
    from mlc_controlnet.runtime.request import GenerateRequest, Settings

UPSCALE_MODES = ("bilinear", "nearest", "nearest-exact", "bicubic")  # sd-webui's "Latent" and "Latent (...)"


def check_upscaler(subject: str, value: Any) -> str:
    """Return `value` if it is one of UPSCALE_MODES; raise UserError otherwise."""
    check_one_of(subject, value, UPSCALE_MODES)
    return str(value)


def check_variant(settings: "Settings", request: "GenerateRequest", manifest: Manifest) -> None:
    """Raise UserError if the bundle does not draw this size, not this large, or has no shallow UNet."""
    _check_size("size", settings.height, settings.width, manifest)
    if settings.hires_scale is not None:
        _check_size("size of hires fix", *hires_size(settings), manifest)
        if request.mask_image is not None:
            remedy = "repaint first, then pass the result as image with hires_scale"
            raise UserError("hires scale", "a mask image beside it", "no mask", remedy)
    if settings.deepcache_interval < 1:
        remedy = "leave it out to compute every step whole"
        raise UserError("deepcache interval", str(settings.deepcache_interval), "1 or more", remedy)
    if settings.deepcache_interval > 1 and UNET_SHALLOW not in manifest.components:
        got, wanted = str(settings.deepcache_interval), "1, because this bundle has no shallow UNet"
        raise UserError("deepcache interval", got, wanted, "build the bundle again with --deepcache, or leave it out")


def hires_size(settings: "Settings") -> tuple[int, int]:
    """Return height and width of the second pass of hires fix, in whole pixels."""
    scale = 1.0 if settings.hires_scale is None else settings.hires_scale
    return round(settings.height * scale), round(settings.width * scale)


def hires_settings(settings: "Settings") -> "Settings":
    """Return the settings of the second pass of hires fix."""
    assert settings.hires_strength is not None, "resolve fills it in"
    height, width = hires_size(settings)
    steps = settings.num_inference_steps if settings.hires_steps is None else settings.hires_steps
    return dataclasses.replace(
        settings,
        height=height,
        width=width,
        num_inference_steps=steps,
        strength=settings.hires_strength,
        timesteps=None,
        sigmas=None,
        hires_scale=None,
    )


def _check_size(subject: str, height: int, width: int, manifest: Manifest) -> None:
    if (height, width) not in manifest.sizes:
        sizes = ", ".join(f"{w}x{h}" for h, w in manifest.sizes)
        remedy = f"choose one of them, or build the bundle with --size {width}x{height} too"
        raise UserError(subject, f"{width}x{height}", f"one of this bundle's, width x height: {sizes}", remedy)

"""What Stable Diffusion XL reads of pictures' sizes (arXiv 2307.01952, section 2.2), and the options for it.

Twin: web/src/engine/time_ids.ts.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import UNET
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.option_text import to_text, words

if TYPE_CHECKING:
    from mlc_controlnet.runtime.request import GenerateRequest, Settings

OF_XL = (
    "prompt_2",
    "negative_prompt_2",
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
)
POOLED = {"prompt_embeds": "pooled_prompt_embeds", "negative_prompt_embeds": "negative_pooled_prompt_embeds"}


def time_ids(settings: "Settings", is_negative: bool) -> np.ndarray:
    """Return float32 [1, 6]: original size, crop and target size of the prompt, or of the negative prompt.

    A negative option that is left out is that of the prompt.
    """
    original, crop, target = settings.original_size, settings.crops_coords_top_left, settings.target_size
    if is_negative:
        original = settings.negative_original_size or original
        crop = settings.negative_crops_coords_top_left or crop
        target = settings.negative_target_size or target
    size = (settings.height, settings.width)
    return np.array([[*(original or size), *(crop or (0, 0)), *(target or size)]], np.float32)


def check_xl(settings: "Settings", request: "GenerateRequest", manifest: Manifest) -> None:
    """Raise UserError for an option of Stable Diffusion XL that this bundle does not read, and for pooled outputs that
    do not belong to the encoded prompts.
    """
    if not manifest.reads_time_ids:
        given = {name: getattr(settings, name) for name in OF_XL}
        for name, value in given.items():
            if value is not None:
                raise UserError(words(name), to_text(value), "none: only Stable Diffusion XL reads it", "leave it out")
    for name, pooled in POOLED.items():
        embeds, value = getattr(request, name), getattr(request, pooled)
        if value is not None and not manifest.reads_time_ids:
            raise UserError(words(pooled), "an array", "none: only Stable Diffusion XL reads it", "leave it out")
        if manifest.reads_time_ids and (embeds is None) != (value is None):
            got = f"none beside {words(name)}" if value is None else f"one without {words(name)}"
            raise UserError(words(pooled), got, "both", "pass both, or the text")
        if value is not None:
            _check_pooled(words(pooled), value, manifest)


def _check_pooled(subject: str, value: np.ndarray, manifest: Manifest) -> None:
    (spec,) = (tensor for tensor in manifest.components[UNET].inputs if tensor.name == "text_embeds")
    remedy = "encode a prompt with the same text encoders"
    if tuple(getattr(value, "shape", ())) != spec.shape:
        got = str(list(value.shape)) if hasattr(value, "shape") else type(value).__name__
        raise UserError(subject, got, f"{list(spec.shape)}, what this bundle's UNet reads", remedy)
    if not math.isfinite(value.sum()):
        raise UserError(subject, "NaN or infinity", "finite numbers", remedy)

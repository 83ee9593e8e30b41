"""Stable Diffusion web UI's names, as its clients write them, and ours."""

import functools
from collections.abc import Mapping
from typing import Any

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.mask_options import MASKED_CONTENTS
from mlc_controlnet.runtime.webui_names import CONTROL_MODES, SAMPLERS, SCHEDULERS, UPSCALERS
from mlc_controlnet.serve.annotators.named import Annotator

RESIZE_MODES = ("Just Resize", "Crop and Resize", "Resize and Fill")
CLIP_STOP = "CLIP_stop_at_last_layers"  # an option: 1 reads all layers
# Annotator -> for threshold_a and threshold_b, what it calls them and the range of the extension's slider.
_THRESHOLDS: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "canny": (("low", 1, 255), ("high", 1, 255)),
    "blur": (("sigma", 0.1, 64),),
    "threshold": (("level", 0, 255),),
    "normal": (("background", 0, 1),),
}


def sampler_and_schedule(sampler: str | None, scheduler: str | None) -> tuple[str | None, str | None]:
    """Return our names. Older clients write both in one: `DPM++ 2M Karras`. Raises UserError for an unknown name."""
    name, label = sampler, scheduler
    if name is not None and _find(SAMPLERS, name) is None:
        for ending in SCHEDULERS:
            if name.lower().endswith(f" {ending.lower()}"):
                name, label = name[: -len(ending) - 1], ending
    key = None if name is None else _known("sampler", SAMPLERS, name)
    schedule = None if label is None else _known("scheduler", SCHEDULERS, label)
    return None if key is None else SAMPLERS[key], None if schedule is None else SCHEDULERS[schedule]


def upscaler(name: str | None) -> str | None:
    """Return our name of a latent upscaler. Raises UserError for an unknown name."""
    return None if name is None else UPSCALERS[_known("hr_upscaler", UPSCALERS, name)]


def control_mode(mode: int | str) -> str:
    """Return our name of a control mode, which clients write as a number or in words. Raises UserError."""
    names = list(CONTROL_MODES)
    if isinstance(mode, int) and 0 <= mode < len(names):
        return CONTROL_MODES[names[mode]]
    return CONTROL_MODES[_known("control_mode", CONTROL_MODES, str(mode))]


def masked_content(place: int) -> str:
    """Return our name of a masked content, which clients write as a number. Raises UserError for another number."""
    if not 0 <= place < len(MASKED_CONTENTS):
        wanted = f"0 to {len(MASKED_CONTENTS) - 1}: {', '.join(MASKED_CONTENTS)}"
        raise UserError("inpainting_fill", str(place), wanted, "choose one of these")
    return MASKED_CONTENTS[place]


def resize_mode(mode: int | str) -> int:
    """Return the place in RESIZE_MODES, which clients write as a number or in words. Raises UserError."""
    if isinstance(mode, int) and 0 <= mode < len(RESIZE_MODES):
        return mode
    for place, name in enumerate(RESIZE_MODES):
        if str(mode).lower() in (name.lower(), f"{name.lower()} (latent upscale)"):
            return place
    wanted = f"one of {', '.join(RESIZE_MODES)}"
    raise UserError("resize_mode", repr(mode), wanted, "choose one of these")


def clip_skip(stop: Any) -> int:
    """Return how many of the text encoder's last layers are left out. Raises UserError for what is no number."""
    if not stop:
        return 0
    try:
        layers = float(stop)
    except (TypeError, ValueError):
        layers = -1.0
    if not layers.is_integer() or layers < 0:
        raise UserError(CLIP_STOP, repr(stop)[:80], "1 for all layers, 2 without the last one", "choose one of these")
    return max(0, int(layers) - 1)


def tuned(
    annotators: Mapping[str, Annotator], name: str, threshold_a: float | None, threshold_b: float | None
) -> Mapping[str, Annotator]:
    """Return annotators of which the named one has the thresholds of a unit.

    As in the extension, a value outside the annotator's range stands for its default: clients send one number to all.
    """
    values = zip(_THRESHOLDS.get(name, ()), (threshold_a, threshold_b), strict=False)
    chosen = {ours: value for (ours, low, high), value in values if value is not None and low <= value <= high}
    return {**annotators, name: functools.partial(annotators[name], **chosen)} if chosen else annotators


def _find(names: dict[str, str] | dict[str, str | None], name: str) -> str | None:
    wanted = name.lower().replace("_", " ")  # schedulers are written as keys too: sgm_uniform
    return next((known for known in names if known.lower() == wanted), None)


def _known(subject: str, names: dict[str, str] | dict[str, str | None], name: str) -> str:
    found = _find(names, name)
    if found is None:
        raise UserError(subject, repr(name), f"one of {', '.join(names)}", "choose one of these")
    return found

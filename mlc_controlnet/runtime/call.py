"""The arguments of a call besides a picture's options: callbacks, the kind of output, where the seed comes from.

Twin: web/src/engine/call.ts.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.denoising import Step
from mlc_controlnet.runtime.output import OUTPUT_TYPES

OnStep: TypeAlias = Callable[[Step], np.ndarray | None]


class Enough(Exception):
    """An `on_step` raises it to finish the picture at once: its latents are then `x0`, what the step predicts."""

    def __init__(self, x0: np.ndarray) -> None:
        super().__init__("the picture is finished early")
        self.x0 = x0


def check_call(
    seed: Any,
    generator: Any,
    on_step: OnStep | None,
    callback_on_step_end: Callable[..., Any] | None,
    output_type: str,
    padding_mask_crop: Any,
) -> None:
    """Raise UserError for arguments of a call of which one would not be read, and for an unknown output type."""
    if output_type not in OUTPUT_TYPES:
        raise UserError("output type", repr(output_type), f"one of {', '.join(OUTPUT_TYPES)}", "choose one of these")
    if output_type == "latent" and padding_mask_crop is not None:
        wanted = "pil or np: the latents are those of the part, not of the picture"
        raise UserError("output type", "latent beside a padding mask crop", wanted, "leave one of them out")
    for subject, pair in (
        ("seed and generator", (seed, generator)),
        ("on_step and callback_on_step_end", (on_step, callback_on_step_end)),
    ):
        if None not in pair:
            raise UserError(subject, "both", "one of them", "leave one out")


def as_on_step(pipeline: Any, callback: Callable[..., dict[str, Any]]) -> OnStep:
    """Make a callback of diffusers' form one of ours."""

    def on_step(step: Step) -> np.ndarray | None:
        returned = callback(pipeline, step.index, step.timestep, {"latents": step.x})
        latents = (returned or {}).get("latents", step.x)
        return None if latents is step.x else latents

    return on_step


def numbered(on_step: OnStep | None, before: int, count: int) -> OnStep | None:
    """Let the steps of one of several passes count through: `before` steps came before it, all passes have `count`."""
    if on_step is None:
        return None
    return lambda step: on_step(dataclasses.replace(step, index=before + step.index, count=count))


def like(x: np.ndarray, latents: Any) -> np.ndarray:
    """Return a callback's latents as float32, of the shape of x. Raises UserError for another shape."""
    values = np.asarray(latents, np.float32)
    if values.shape != x.shape:
        raise UserError("latents of the callback", str(list(values.shape)), str(list(x.shape)), "keep the shape")
    return values

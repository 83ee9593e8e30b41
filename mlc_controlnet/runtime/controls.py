"""ControlNets at work: which of a bundle's ControlNets a picture uses, and how strongly in each step.

Every residual of a ControlNet has a scale of its own. Guess mode and the control modes are such scales. Some of them
also leave the negative prompt's half of classifier-free guidance without residuals.
Twin: web/src/engine/controls.ts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlc_controlnet.bundle.manifest import ControlNetEntry
from mlc_controlnet.runtime.engine import ControlEmbedding
from mlc_controlnet.runtime.option_checks import CONTROL, PROMPT
from mlc_controlnet.runtime.request import Settings, per_controlnet

SOFT_WEIGHT = 0.825  # of Stable Diffusion web UI's ControlNet: a residual weighs so much less than the next deeper one


@dataclass(frozen=True)
class ControlUnit:
    """One ControlNet in use: its settings, without its picture.

    Attributes:
        residual_scales: one number for each residual, from the finest skip connection to the middle block.
        start, end: the share of the steps, 0 to 1, in which it is active.
        prompt_only: whether only the prompt's half of classifier-free guidance gets its residuals.
    """

    controlnet: ControlNetEntry
    residual_scales: tuple[float, ...]
    start: float
    end: float
    prompt_only: bool

    def is_active(self, index: int, count: int) -> bool:
        """Return whether it takes part in step `index` of `count`. A scale of 0 switches it off."""
        begins, ends = index / count, (index + 1) / count
        return any(self.residual_scales) and begins >= self.start and ends <= self.end


@dataclass(frozen=True)
class Control:
    """One ControlNet in use, with its picture."""

    unit: ControlUnit
    embedding: ControlEmbedding

    def affects(self, is_negative: bool) -> bool:
        """Return whether it affects the context of the negative prompt, or of the prompt."""
        return not (is_negative and self.unit.prompt_only)


def control_units(settings: Settings, controlnets: Sequence[ControlNetEntry], residuals: int) -> list[ControlUnit]:
    """Describe the ControlNets that `settings` names, in the order of their control images.

    Args:
        controlnets: those of the bundle.
        residuals: how many residuals a ControlNet returns.
    """
    by_name = {controlnet.name: controlnet for controlnet in controlnets}
    used = [by_name[name] for name in settings.controlnets]
    scales = per_controlnet(settings.controlnet_conditioning_scale, len(used))
    starts, ends = (
        per_controlnet(share, len(used)) for share in (settings.control_guidance_start, settings.control_guidance_end)
    )
    modes = per_controlnet(settings.control_mode, len(used))
    units = []
    for i, controlnet in enumerate(used):
        guesses = settings.guess_mode and not controlnet.global_pool_conditions
        relative = guess_scales(residuals) if guesses else mode_scales(modes[i], residuals)
        # As in diffusers, a ControlNet that pools its residuals affects the prompt's context only.
        prompt_only = settings.guess_mode or controlnet.global_pool_conditions or modes[i] == CONTROL
        scaled = tuple(scales[i] * weight for weight in relative)
        units.append(ControlUnit(controlnet, scaled, starts[i], ends[i], prompt_only))
    return units


def guess_scales(residuals: int) -> tuple[float, ...]:
    """Return diffusers' scales of guess mode: from 0.1 at the finest residual to 1 at the middle block, geometric."""
    return tuple(10.0 ** (i / max(residuals - 1, 1) - 1) for i in range(residuals))


def mode_scales(mode: str, residuals: int) -> tuple[float, ...]:
    """Return Stable Diffusion web UI's scales of a control mode: with `prompt` and `control`, 0.825 ** depth.

    depth counts from the middle block, which has 0, to the finest residual.
    """
    base = SOFT_WEIGHT if mode in (PROMPT, CONTROL) else 1.0
    return tuple(base ** (residuals - 1 - i) for i in range(residuals))

"""From a request to complete settings: defaults, and the checks of options together.

Twin: web/src/engine/resolve.ts.
"""

import functools
from typing import TYPE_CHECKING, Any

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.runtime.hires import check_hires, hires_settings
from mlc_controlnet.runtime.option_pairs import check_pairs
from mlc_controlnet.runtime.option_text import json_number, words
from mlc_controlnet.runtime.prompt_syntax import WEBUI, parse_prompt
from mlc_controlnet.runtime.request import OPTIONS, GenerateRequest, Settings, per_controlnet
from mlc_controlnet.runtime.time_ids import check_xl
from mlc_controlnet.runtime.variant_options import check_variant

if TYPE_CHECKING:
    from mlc_controlnet.bundle.sampler_description import SamplerDescriptions
    from mlc_controlnet.runtime.samplers.row import Schedule


def resolve(request: GenerateRequest, manifest: Manifest, samplers: "SamplerDescriptions") -> Settings:
    """Fill in the defaults and check every option, alone and together.

    Raises UserError for the first value that cannot be used.
    """
    values = {}
    for name, option in OPTIONS.items():
        value = getattr(request, name)
        if value is None and option.default is not None:
            value = option.default(manifest, request)
        values[name] = option.check(words(name), value)
    settings = Settings(**values)
    if settings.prompt_syntax == WEBUI:
        for name in ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2"):
            parse_prompt(getattr(settings, name) or "", words(name))
    layers = manifest.text_layers
    if not 0 <= settings.clip_skip < layers:
        got, wanted = str(settings.clip_skip), f"0 to {layers - 1}: the text encoder has {layers} layers"
        raise UserError("clip skip", got, wanted, "choose another number")
    _check_controlnets(settings, request, manifest)
    check_variant(settings, manifest)
    check_hires(settings, request, manifest)
    check_pairs(settings, request, manifest)
    check_xl(settings, request, manifest)
    schedule_of(settings, samplers)
    if settings.hires_scale is not None:
        schedule_of(hires_settings(settings), samplers)
    return settings


def schedule_of(settings: Settings, samplers: "SamplerDescriptions") -> "Schedule":
    """Return the rows of the sampler that `settings` name. Raises UserError for what the sampler cannot do."""
    return _schedule(
        samplers,
        settings.sampler,
        settings.num_inference_steps,
        timesteps=settings.timesteps,
        sigmas=settings.sigmas,
        schedule_type=settings.schedule_type,
        eta=settings.eta,
        strength=settings.strength,
    )


@functools.lru_cache(maxsize=8)  # the checks and the drawing of one picture ask for the same one, and so does the next
def _schedule(samplers: "SamplerDescriptions", sampler: str, steps: int, **options: Any) -> "Schedule":
    from mlc_controlnet.runtime.samplers.schedule import build_schedule  # imports numpy

    return build_schedule(samplers, sampler, steps, **options)


def _check_controlnets(settings: Settings, request: GenerateRequest, manifest: Manifest) -> None:
    known = [controlnet.name for controlnet in manifest.controlnets]
    used = settings.controlnets
    for name in used:
        check_one_of("controlnets", name, known)
    if len(set(used)) < len(used):
        raise UserError("controlnets", ", ".join(used), "each name once", "leave the repeated ones out")
    images = len(request.control_images)
    if images != len(used):
        wanted = f"{len(used)}, one for each ControlNet in use ({', '.join(used)})" if used else "none: none is in use"
        remedy = f"pass as many, or name the ControlNets to use in controlnets: {', '.join(known)}"
        raise UserError("control image", str(images) if images else "none", wanted, remedy)
    options = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "control_mode")
    for name in options:
        value = getattr(settings, name)
        if isinstance(value, tuple) and len(value) != len(used):
            wanted = f"one value, or {len(used)}, one for each ControlNet in use"
            raise UserError(words(name), f"{len(value)} values", wanted, "pass as many as control images")
    starts, ends = (
        per_controlnet(share, len(used)) for share in (settings.control_guidance_start, settings.control_guidance_end)
    )
    for start, end in zip(starts, ends, strict=True):
        if not 0 <= start < end <= 1:
            got = f"from {json_number(start)} to {json_number(end)}"
            raise UserError(
                "control guidance", got, "0 <= start < end <= 1", "leave both out to apply it in every step"
            )

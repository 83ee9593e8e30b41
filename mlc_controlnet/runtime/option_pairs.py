"""Options that need or exclude one another: what would have no effect is refused, or told.

Twin: web/src/engine/option_pairs.ts.
"""

import math
from typing import TYPE_CHECKING

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import UNET
from mlc_controlnet.errors import UserError
from mlc_controlnet.notices import Notice
from mlc_controlnet.runtime.mask_options import ORIGINAL
from mlc_controlnet.runtime.option_checks import BALANCED
from mlc_controlnet.runtime.option_text import to_text, words

if TYPE_CHECKING:
    from mlc_controlnet.runtime.request import GenerateRequest, Settings

NEEDS_IMAGE = (("strength", 1.0),)  # name and the value that means nothing
NEEDS_MASK = (("mask_blur", 0.0), ("padding_mask_crop", None), ("masked_content", ORIGINAL), ("apply_overlay", True))
NEEDS_CONTROLNET = (
    ("control_guidance_start", 0.0),
    ("control_guidance_end", 1.0),
    ("control_mode", BALANCED),
    ("guess_mode", False),
)
ETA_SAMPLERS = ("ddim", "tcd")
LEAVE_OUT = "pass both, or leave it out"


def check_pairs(settings: "Settings", request: "GenerateRequest", manifest: Manifest) -> None:
    """Raise UserError for an option without the one that it needs, or beside one that takes its place."""
    _check_pictures(settings, request)
    _check_controls(settings)
    _check_texts(settings, request)
    _check_embeds(request, manifest)


def notices_of(settings: "Settings", request: "GenerateRequest", manifest: Manifest) -> tuple[str, ...]:
    """Return a notice for each option that diffusers accepts where it has no effect: eta, and those of guidance."""
    of_sampler: tuple[str, ...] = ()
    if settings.eta != 0 and settings.sampler not in ETA_SAMPLERS:
        of_sampler = (_no_effect("eta", "only the samplers ddim and tcd read it", "sampler"),)
    if settings.guidance_scale > 1 and not manifest.embeds_guidance:
        return of_sampler
    why = "a model that embeds its guidance reads none" if manifest.embeds_guidance else "guidance is off"
    given = {
        "guidance_rescale": settings.guidance_rescale != 0,
        "negative_prompt": settings.negative_prompt != "",
        "negative_prompt_2": bool(settings.negative_prompt_2),
        "negative_prompt_embeds": request.negative_prompt_embeds is not None,
        "negative_pooled_prompt_embeds": request.negative_pooled_prompt_embeds is not None,
    }
    code = "guidance-embedded" if manifest.embeds_guidance else "guidance-off"
    return of_sampler + tuple(_no_effect(name, why, code) for name, is_given in given.items() if is_given)


def _no_effect(name: str, why: str, code: str) -> Notice:
    return Notice(f"{words(name)}: has no effect, {why}", "no-effect", {"subject": words(name), "why": code})


def _check_pictures(settings: "Settings", request: "GenerateRequest") -> None:
    if request.image is None:
        _refuse_alone(settings, NEEDS_IMAGE, "an image", "an image to start from")
    if request.mask_image is None:
        _refuse_alone(settings, NEEDS_MASK, "a mask image", "a picture and a mask that is white where it is repainted")
    if settings.masked_content != ORIGINAL and settings.strength == 1:
        wanted = "a strength below 1, for example 0.75: at 1 the drawing starts from noise alone"
        raise UserError("masked content", f"{settings.masked_content} at strength 1", wanted, LEAVE_OUT)
    if settings.padding_mask_crop is not None and not settings.apply_overlay:
        got, wanted = "false beside a padding mask crop", "true: the part is pasted back into the picture"
        raise UserError("apply overlay", got, wanted, "leave one of them out")


def _check_controls(settings: "Settings") -> None:
    if not settings.controlnets:
        _refuse_alone(settings, NEEDS_CONTROLNET, "a ControlNet in use", "a ControlNet and its control image")
    modes = settings.control_mode if isinstance(settings.control_mode, tuple) else (settings.control_mode,)
    for mode in modes:
        if settings.guess_mode and mode != BALANCED:
            wanted = f"{BALANCED}: guess mode has weights of its own"
            raise UserError("control mode", f"{mode} beside guess mode", wanted, "leave one of them out")


def _refuse_alone(settings: "Settings", options: tuple[tuple[str, object], ...], without: str, needed: str) -> None:
    for name, nothing in options:
        value = getattr(settings, name)
        if value not in (nothing, ()):
            raise UserError(words(name), f"{to_text(value)} without {without}", f"{needed} with it", LEAVE_OUT)


def _check_texts(settings: "Settings", request: "GenerateRequest") -> None:
    """Refuse a text beside its encoding, as diffusers does, and what applies to texts if there is none."""
    for name in ("prompt", "negative_prompt"):
        if getattr(request, f"{name}_embeds") is None:
            continue
        for text in (name, f"{name}_2"):
            if getattr(settings, text):
                got = f"a text beside {words(name)} embeds"
                raise UserError(words(text), got, "one of them", "leave the text empty, or the embeds out")
    is_encoded = request.prompt_embeds is not None and request.negative_prompt_embeds is not None
    if is_encoded and settings.clip_skip:
        got = f"{settings.clip_skip} beside encoded prompts"
        raise UserError("clip skip", got, "0", "encode the prompts without their last layers, and leave it out")


def _check_embeds(request: "GenerateRequest", manifest: Manifest) -> None:
    (context,) = (tensor for tensor in manifest.components[UNET].inputs if tensor.name == "context")
    _, tokens, width = context.shape
    allowed = [(1, chunks * tokens, width) for chunks in range(1, manifest.max_chunks + 1)]
    shapes = []
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        embeds = getattr(request, name)
        if embeds is None:
            continue
        remedy = "encode a prompt with the same text encoder"
        if not hasattr(embeds, "shape"):
            raise UserError(words(name), type(embeds).__name__, "a float32 array", remedy)
        if tuple(embeds.shape) not in allowed:
            wanted = f"{' or '.join(str(list(shape)) for shape in allowed)}, what this bundle's UNet reads"
            raise UserError(words(name), str(list(embeds.shape)), wanted, remedy)
        if not math.isfinite(embeds.sum()):
            raise UserError(words(name), "NaN or infinity", "finite numbers", remedy)
        shapes.append(list(embeds.shape))
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        wanted = f"{shapes[0]}, the shape of the prompt embeds"
        raise UserError("negative prompt embeds", str(shapes[1]), wanted, "append chunks of an empty prompt")

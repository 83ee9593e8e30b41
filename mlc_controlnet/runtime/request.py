"""The request for one picture: every option with its default, its check and its text for --help, declared once.

To add an option, add a field to `Settings` and use it in the pipeline. The command line, the metadata of a PNG file and
`resolve` go through the fields. Twin: web/src/engine/request.ts, the same names in camelCase.

This module imports neither numpy nor TVM: the command line reads it to build its parser.
"""

import dataclasses
import json
import math
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import UNET
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.runtime.mask_options import (
    check_mask_blur,
    check_padding_mask_crop,
    check_strength,
)
from mlc_controlnet.runtime.variant_options import UPSCALE_MODES, check_upscaler, check_variant, hires_settings

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mlc_controlnet.bundle.sampler_description import SamplerDescriptions
    from mlc_controlnet.runtime.samplers.row import Schedule

MAX_SEED = 2**53 - 1  # the largest integer that is exact in JavaScript
BALANCED, PROMPT, CONTROL = CONTROL_MODES = ("balanced", "prompt", "control")
# "plain" reads a prompt as diffusers does: brackets are text, and what exceeds one chunk is cut. The default is
# "webui", because in prompts that are shared brackets mean weights, and every program that draws in a page or a window
# reads them so. Without brackets, backslashes, BREAK and AND, a prompt that fits in one chunk is the same in both.
WEBUI, PLAIN = PROMPT_SYNTAXES = ("webui", "plain")


T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """The description of one field of `Settings`.

    Attributes:
        help: one line for --help, the default included.
        check: takes the option's name in words and a value; returns the value, or raises UserError.
        default: computes the value of an option that the caller leaves out; None if the option is required.
        metavar: how --help shows a value; "" for a flag.
        parse: makes the value from the command line's text.
    """

    help: str
    check: Callable[[str, Any], Any]
    default: "Callable[[Manifest, GenerateRequest], Any] | None"
    metavar: str
    parse: Callable[[str], Any]


def check_text(subject: str, value: Any) -> str:
    """Return `value` if it is a string that UTF-8 can hold; raise UserError otherwise."""
    if not isinstance(value, str):
        raise UserError(subject, type(value).__name__, "one string", "pass the text itself, one picture per call")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(subject, "bytes that are not UTF-8", "text", "type it in a UTF-8 terminal") from None
    return value


def check_integer(subject: str, value: Any) -> int:
    """Return `value` if it is an integer; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(subject, repr(value), "an integer", "choose another number")
    return value


def check_number(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(subject, repr(value), "a finite number", "choose another number")
    return float(value)


def check_seed(subject: str, value: Any) -> int:
    """Return `value` if it is an integer from 0 to MAX_SEED; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise UserError(subject, repr(value), f"an integer from 0 to {MAX_SEED}", "choose another seed")
    return value


def check_flag(subject: str, value: Any) -> bool:
    """Return `value` if it is a bool; raise UserError otherwise."""
    if not isinstance(value, bool):
        raise UserError(subject, repr(value), "True or False", "pass one of them")
    return value


def check_mode(subject: str, value: Any) -> str:
    """Return `value` if it is one of CONTROL_MODES; raise UserError otherwise."""
    check_one_of(subject, value, CONTROL_MODES)
    return str(value)


def check_syntax(subject: str, value: Any) -> str:
    """Return `value` if it is one of PROMPT_SYNTAXES; raise UserError otherwise."""
    check_one_of(subject, value, PROMPT_SYNTAXES)
    return str(value)


def check_names(subject: str, value: Any) -> tuple[str, ...]:
    """Return `value`, a sequence of strings, as a tuple; raise UserError otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(subject, repr(value), "a list of names", "put the name into a list")
    return tuple(check_text(subject, name) for name in value)


def check_share(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a number from 0 to 1; raise UserError otherwise."""
    number = check_number(subject, value)
    if not 0 <= number <= 1:
        raise UserError(subject, json_number(number), "a number from 0 to 1", "choose another number")
    return number


def check_numbers(subject: str, value: Any) -> tuple[float, ...] | None:
    """Return `value`, None or a sequence of finite numbers, as a tuple; raise UserError otherwise."""
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise UserError(subject, repr(value), "a list of numbers", "put the number into a list")
    return tuple(check_number(subject, float(number)) for number in value)


def check_text_or_none(subject: str, value: Any) -> str | None:
    """Return `value` if it is None or a string; raise UserError otherwise."""
    return None if value is None else check_text(subject, value)


def or_none(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """Return a check that also lets None pass."""
    return lambda subject, value: None if value is None else check(subject, value)


def one_or_each(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | tuple[T, ...]]:
    """Return a check that takes one value for all ControlNets, or a list with a value for each."""

    def check_all(subject: str, value: Any) -> T | tuple[T, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return check(subject, value)
        return tuple(check(subject, item) for item in value)

    return check_all


def one_or_more(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Parse `0.5` or, with a value for each ControlNet, `0.5,1`."""

    def value(text: str) -> Any:
        values = [parse(part) for part in text.split(",")]
        return values[0] if len(values) == 1 else values

    return value


# Functions that parse the command line's text; argparse names them in its errors.
def numbers(text: str) -> list[float]:
    """Parse `999,759.5,499`."""
    return [float(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Parse `canny,depth`; an empty text is no name."""
    return text.split(",") if text else []


def true_or_false(text: str) -> bool:
    """Parse `true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _option(
    help: str,
    check: Callable[[str, Any], Any],
    default: "Callable[[Manifest, GenerateRequest], Any] | None" = None,
    metavar: str = "X",
    parse: Callable[[str], Any] = float,
) -> Any:
    """Declare a field of `Settings`. In a request, None stands for an option that the caller leaves out."""
    metadata = {"option": Option(help, check, default, metavar, parse)}
    if default is None:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one picture, under diffusers' names. `resolve` returns them complete and checked.

    Together with the pictures of the request and the bundle, they determine the result. An option of the ControlNets
    is one value for all of them, or a tuple with a value for each in use.
    """

    prompt: str = _option(
        "text that describes the picture, for example: gold circle with navy background",
        check_text,
        metavar="TEXT",
        parse=str,
    )
    negative_prompt: str = _option(
        "text that the picture moves away from; has no effect if guidance_scale is 1 or less (default: empty)",
        check_text,
        lambda manifest, request: "",
        "TEXT",
        str,
    )
    prompt_syntax: str = _option(
        "how to read the prompts: webui, with weights as in (word:1.2) and [word], or plain, where brackets are text "
        "(default: webui)",
        check_syntax,
        lambda manifest, request: WEBUI,
        "NAME",
        str,
    )
    clip_skip: int = _option(
        "number of the text encoder's last layers to leave out; Stable Diffusion web UI counts one more (default: 0)",
        check_integer,
        lambda manifest, request: 0,
        "N",
        int,
    )
    seed: int = _option(
        "integer from 0 to 2^53 - 1 that determines the noise (default: random)",
        check_seed,
        lambda manifest, request: secrets.randbelow(MAX_SEED + 1),
        "N",
        int,
    )
    num_inference_steps: int = _option(
        "number of denoising steps (default: the bundle's)",
        check_integer,
        lambda manifest, request: manifest.defaults.steps,
        "N",
        int,
    )
    guidance_scale: float = _option(
        "weight of the prompt; 1 or less switches guidance off and halves the time (default: the bundle's)",
        check_number,
        lambda manifest, request: manifest.defaults.guidance_scale,
    )
    controlnets: tuple[str, ...] = _option(
        "names of the ControlNets to use, with commas, in the order of the control images (default: all)",
        check_names,
        lambda manifest, request: tuple(controlnet.name for controlnet in manifest.controlnets),
        "NAME",
        names,
    )
    controlnet_conditioning_scale: float | tuple[float, ...] = _option(
        "weight of the control image; 0 switches the ControlNet off; several ControlNets: one weight for all, or one "
        "for each, with commas (default: the bundle's)",
        one_or_each(check_number),
        lambda manifest, request: manifest.defaults.conditioning_scale,
        parse=one_or_more(float),
    )
    control_guidance_start: float | tuple[float, ...] = _option(
        "share of the steps, 0 to 1, after which the ControlNet starts; one for all, or one for each (default: 0)",
        one_or_each(check_number),
        lambda manifest, request: 0.0,
        parse=one_or_more(float),
    )
    control_guidance_end: float | tuple[float, ...] = _option(
        "share of the steps, 0 to 1, after which the ControlNet stops; one for all, or one for each (default: 1)",
        one_or_each(check_number),
        lambda manifest, request: 1.0,
        parse=one_or_more(float),
    )
    control_mode: str | tuple[str, ...] = _option(
        "which matters more, as in Stable Diffusion web UI: balanced, prompt or control; one for all, or one for each "
        "(default: balanced)",
        one_or_each(check_mode),
        lambda manifest, request: BALANCED,
        "MODE",
        one_or_more(str),
    )
    guess_mode: bool = _option(
        "let the ControlNet recognise the control image without a prompt: weak in fine details, and without effect on "
        "the negative prompt",
        check_flag,
        lambda manifest, request: False,
        "",
    )
    sampler: str = _option(
        "one of the bundle's samplers, for example ddim, euler or dpmpp_2m (default: the bundle's)",
        check_text,
        lambda manifest, request: manifest.samplers.default,
        "NAME",
        str,
    )
    schedule_type: str | None = _option(
        "where the sampler puts its steps: leading, linspace, trailing, karras, exponential or beta (default: the "
        "model's)",
        check_text_or_none,
        lambda manifest, request: None,
        "NAME",
        str,
    )
    eta: float = _option(
        "share of fresh noise in each step, 0 to 1, of the samplers ddim and tcd (default: 0)",
        check_share,
        lambda manifest, request: 0.0,
    )
    timesteps: tuple[float, ...] | None = _option(
        "the steps' timesteps, with commas, from the noisiest, in place of num_inference_steps",
        check_numbers,
        lambda manifest, request: None,
        "X,X,...",
        numbers,
    )
    sigmas: tuple[float, ...] | None = _option(
        "the steps' noise levels, with commas, from the noisiest to the last, in place of num_inference_steps",
        check_numbers,
        lambda manifest, request: None,
        "X,X,...",
        numbers,
    )
    height: int = _option(
        "of the picture in pixels; with width one of the bundle's sizes (default: that of its first size)",
        check_integer,
        lambda manifest, request: manifest.model.height,
        "N",
        int,
    )
    width: int = _option(
        "of the picture in pixels (default: that of the bundle's first size)",
        check_integer,
        lambda manifest, request: manifest.model.width,
        "N",
        int,
    )
    hires_scale: float | None = _option(
        "hires fix: draw once more at so many times the size, from the enlarged latents; the bundle must have that "
        "size (default: off)",
        or_none(check_number),
        lambda manifest, request: None,
    )
    hires_strength: float | None = _option(
        "hires fix: the share of its steps that run, 0 to 1; less stays nearer to the small picture (default: 0.7)",
        or_none(check_share),
        lambda manifest, request: None if request.hires_scale is None else 0.7,
    )
    hires_steps: int | None = _option(
        "hires fix: number of denoising steps, of which hires_strength run (default: num_inference_steps)",
        or_none(check_integer),
        lambda manifest, request: None,
        "N",
        int,
    )
    hires_upscaler: str | None = _option(
        "hires fix: how latents are enlarged: bilinear, nearest, nearest-exact or bicubic (default: bilinear)",
        or_none(check_upscaler),
        lambda manifest, request: None if request.hires_scale is None else UPSCALE_MODES[0],
        "NAME",
        str,
    )
    deepcache_interval: int = _option(
        "of a bundle built with --deepcache: the distance of steps that compute the whole UNet, such as 2, 3 or 5; 1 "
        "computes it in all (default: 1)",
        check_integer,
        lambda manifest, request: 1,
        "N",
        int,
    )
    strength: float = _option(
        "with --image: the share of the steps that run on the noised picture; 0 keeps it, 1 draws a new one (default: "
        "0.8; with a mask 1)",
        check_strength,
        lambda manifest, request: 0.8 if request.image is not None and request.mask_image is None else 1.0,
    )
    mask_blur: float = _option(
        "softness of the mask's edge in its pixels, 0 to 256 (default: 0)",
        check_mask_blur,
        lambda manifest, request: 0.0,
    )
    padding_mask_crop: int | None = _option(
        "draw only the part around the mask, with so many pixels on each side, at the model's full size (default: the "
        "whole picture)",
        check_padding_mask_crop,
        lambda manifest, request: None,
        "N",
        int,
    )
    apply_overlay: bool = _option(
        "true puts the picture's own pixels where the mask is black, false leaves what the VAE makes of them (default: "
        "true)",
        check_flag,
        lambda manifest, request: True,
        "BOOL",
        true_or_false,
    )


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(Settings):
    """Settings, of which any but the prompt may be left out, and the pictures that they apply to.

    Attributes:
        control_image: the picture that conditions, of any size and mode; with several ControlNets, a list with one for
            each.
        image: the picture to start from. An inpainting model needs one, and a mask.
        mask_image: white where the model repaints `image`. The rest of the picture stays as it is.
        latents: float32 [1, C, h, w], standard normal, in place of the seed's noise.
        prompt_embeds, negative_prompt_embeds: float32 [1, T, D], encoded prompts in place of the texts.
    """

    control_image: "Image.Image | list[Image.Image] | tuple[Image.Image, ...] | None" = None
    image: "Image.Image | None" = None
    mask_image: "Image.Image | None" = None
    latents: "np.ndarray | None" = None
    prompt_embeds: "np.ndarray | None" = None
    negative_prompt_embeds: "np.ndarray | None" = None

    @property
    def control_images(self) -> "list[Image.Image]":
        """The control images, one for each ControlNet in use."""
        if self.control_image is None:
            return []
        return list(self.control_image) if isinstance(self.control_image, list | tuple) else [self.control_image]


# In the order of the record: option name -> its description.
OPTIONS: dict[str, Option] = {field.name: field.metadata["option"] for field in dataclasses.fields(Settings)}


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
    layers = manifest.text_layers
    if not 0 <= settings.clip_skip < layers:
        got, wanted = str(settings.clip_skip), f"0 to {layers - 1}: the text encoder has {layers} layers"
        raise UserError("clip skip", got, wanted, "choose another number")
    _check_controlnets(settings, request, manifest)
    check_variant(settings, request, manifest)
    _check_embeds(request, manifest)
    schedule_of(settings, samplers)
    if settings.hires_scale is not None:
        schedule_of(hires_settings(settings), samplers)
    return settings


def schedule_of(settings: Settings, samplers: "SamplerDescriptions") -> "Schedule":
    """Compute the rows of the sampler that `settings` name. Raises UserError for what the sampler cannot do."""
    from mlc_controlnet.runtime.samplers.schedule import build_schedule  # imports numpy

    return build_schedule(
        samplers,
        settings.sampler,
        settings.num_inference_steps,
        timesteps=settings.timesteps,
        sigmas=settings.sigmas,
        schedule_type=settings.schedule_type,
        eta=settings.eta,
        strength=settings.strength,
    )


def _check_embeds(request: GenerateRequest, manifest: Manifest) -> None:
    (context,) = (tensor for tensor in manifest.components[UNET].inputs if tensor.name == "context")
    _, tokens, width = context.shape
    allowed = [(1, chunks * tokens, width) for chunks in range(1, manifest.max_chunks + 1)]
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        embeds = getattr(request, name)
        if embeds is not None and tuple(embeds.shape) not in allowed:
            wanted = f"{' or '.join(str(list(shape)) for shape in allowed)}, what this bundle's UNet reads"
            raise UserError(words(name), str(list(embeds.shape)), wanted, "encode a prompt with the same text encoder")


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


def per_controlnet(value: T | tuple[T, ...], count: int) -> tuple[T, ...]:
    """Return the value of each of `count` ControlNets."""
    return value if isinstance(value, tuple) else (value,) * count


def to_metadata(settings: Settings) -> dict[str, str]:
    """Return the settings as text chunks of a PNG file, by name: texts as they are, everything else as JSON.

    An option that is None is left out.
    """
    values = {name: getattr(settings, name) for name in OPTIONS}
    return {name: _to_text(value) for name, value in values.items() if value is not None}


def words(name: str) -> str:
    """Return a field's name as error messages write it: `guidance scale` for `guidance_scale`."""
    return name.replace("_", " ")


def json_number(value: float) -> str:
    """Return a finite number as JavaScript and RFC 8785 (section 3.2.2.3) write it: 2 for 2.0, 1e-7 for 1e-07."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return re.sub(r"(?:\.0)?e([+-])0*", r"e\1", repr(value))


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else _to_json(value)


def _to_json(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_to_json, value))}]"
    return json_number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

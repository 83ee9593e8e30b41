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
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.sampler_table import SamplerTables, pick_table
from mlc_controlnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MAX_SEED = 2**53 - 1  # the largest integer that is exact in JavaScript


@dataclass(frozen=True)
class Option:
    """The description of one field of `Settings`.

    Attributes:
        help: one line for --help, the default included.
        check: takes the option's name in words and a value; returns the value, or raises UserError.
        default: computes the value of an option that the caller leaves out; None if the option is required.
    """

    help: str
    check: Callable[[str, Any], Any]
    default: Callable[[Manifest], Any] | None


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


def _option(help: str, check: Callable[[str, Any], Any], default: Callable[[Manifest], Any] | None = None) -> Any:
    """Declare a field of `Settings`. In a request, None stands for an option that the caller leaves out."""
    metadata = {"option": Option(help, check, default)}
    if default is None:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one picture, under diffusers' names. `resolve` returns them complete and checked.

    Together with the pictures of the request and the bundle, they determine the result.
    """

    prompt: str = _option("text that describes the picture, for example: gold circle with navy background", check_text)
    negative_prompt: str = _option(
        "text that the picture moves away from; has no effect if guidance_scale is 1 or less (default: empty)",
        check_text,
        lambda manifest: "",
    )
    seed: int = _option(
        "integer from 0 to 2^53 - 1 that determines the noise (default: random)",
        check_seed,
        lambda manifest: secrets.randbelow(MAX_SEED + 1),
    )
    num_inference_steps: int = _option(
        "number of denoising steps (default: the bundle's)",
        check_integer,
        lambda manifest: manifest.defaults.steps,
    )
    guidance_scale: float = _option(
        "weight of the prompt; 1 or less switches guidance off and halves the time (default: the bundle's)",
        check_number,
        lambda manifest: manifest.defaults.guidance_scale,
    )
    controlnet_conditioning_scale: float = _option(
        "weight of the control image; 0 switches the ControlNet off (default: the bundle's)",
        check_number,
        lambda manifest: manifest.defaults.conditioning_scale,
    )
    control_guidance_start: float = _option(
        "share of the steps, 0 to 1, after which the ControlNet starts (default: 0)",
        check_number,
        lambda manifest: 0.0,
    )
    control_guidance_end: float = _option(
        "share of the steps, 0 to 1, after which the ControlNet stops (default: 1)",
        check_number,
        lambda manifest: 1.0,
    )
    sampler: str = _option(
        "one of the bundle's samplers, for example ddim, euler or dpmpp_2m (default: the bundle's)",
        check_text,
        lambda manifest: manifest.samplers.default,
    )


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(Settings):
    """Settings, of which any but the prompt may be left out, and the pictures that they apply to.

    Attributes:
        control_image: the picture that conditions, of any size and mode.
        image, mask_image: for an inpainting model only: the picture to repaint, and a mask that is white where the
            model repaints. The rest of the picture goes through the VAE, so it is close to the original, not equal.
        latents: float32 [1, C, h, w], standard normal, in place of the seed's noise.
    """

    control_image: "Image.Image | None" = None
    image: "Image.Image | None" = None
    mask_image: "Image.Image | None" = None
    latents: "np.ndarray | None" = None


# In the order of the record: option name -> its description and its type.
OPTIONS: dict[str, Option] = {field.name: field.metadata["option"] for field in dataclasses.fields(Settings)}
OPTION_TYPES: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Settings)}


def resolve(request: Settings, manifest: Manifest, tables: SamplerTables) -> Settings:
    """Fill in the defaults and check every option, alone and together.

    Raises UserError for the first value that cannot be used.
    """
    values = {}
    for name, option in OPTIONS.items():
        value = getattr(request, name)
        if value is None and option.default is not None:
            value = option.default(manifest)
        values[name] = option.check(words(name), value)
    settings = Settings(**values)
    start, end = settings.control_guidance_start, settings.control_guidance_end
    if not 0 <= start < end <= 1:
        got = f"from {json_number(start)} to {json_number(end)}"
        raise UserError("control guidance", got, "0 <= start < end <= 1", "leave both out to apply it in every step")
    pick_table(tables, settings.sampler, settings.num_inference_steps)
    return settings


def to_metadata(settings: Settings) -> dict[str, str]:
    """Return the settings as text chunks of a PNG file, by name: texts as they are, everything else as JSON."""
    return {name: _to_text(getattr(settings, name)) for name in OPTIONS}


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
    if isinstance(value, str):
        return value
    return json_number(value) if isinstance(value, float) else json.dumps(value)

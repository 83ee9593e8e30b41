"""The request for one picture: every option with its default, its check and its text for --help, declared once.

To add an option, add a field to `Settings` and use it in the pipeline. The command line, the metadata of a PNG file and
`resolve` go through the fields. Twin: web/src/engine/request.ts, the same names in camelCase.

This module imports neither numpy nor TVM: the command line reads it to build its parser.
"""

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.runtime.hires import HIRES_STRENGTH
from mlc_controlnet.runtime.mask_options import (
    ORIGINAL,
    check_mask_blur,
    check_masked_content,
    check_padding_mask_crop,
    check_strength,
)
from mlc_controlnet.runtime.option_checks import (
    BALANCED,
    MAX_SEED,
    UPSCALE_MODES,
    check_flag,
    check_hires_scale,
    check_hires_steps,
    check_integer,
    check_mode,
    check_names,
    check_number,
    check_numbers,
    check_pair,
    check_seed,
    check_share,
    check_syntax,
    check_text,
    check_text_or_none,
    check_upscaler,
    one_or_each,
    or_none,
)
from mlc_controlnet.runtime.option_text import integers, names, numbers, one_or_more, to_text, true_or_false
from mlc_controlnet.runtime.prompt_syntax import WEBUI

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

T = TypeVar("T")

IMAGE_STRENGTH = 0.8  # diffusers' default for a picture without a mask


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


def _second_text(of: str) -> Any:
    """Declare a text for the second text encoder."""
    help = f"Stable Diffusion XL: another {of} for the second text encoder (default: the {of})"
    return _option(help, or_none(check_text), lambda manifest, request: None, "TEXT", str)


def _pair(help: str, default: str) -> Any:
    """Declare two integers, the vertical one first."""
    return _option(f"{help} (default: {default})", check_pair, lambda manifest, request: None, "N,N", integers)


def default_hires_steps(manifest: Manifest, request: "GenerateRequest") -> int | None:
    """Return the number of the first pass; None without hires fix."""
    if request.hires_scale is None:
        return None
    return manifest.defaults.steps if request.num_inference_steps is None else request.num_inference_steps


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
    prompt_2: str | None = _second_text("prompt")
    negative_prompt_2: str | None = _second_text("negative prompt")
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
    guidance_rescale: float = _option(
        "share, 0 to 1, to which guidance keeps the contrast of the prompt's own prediction: 0.7 is usual for models "
        "that predict v and begin at pure noise, which guidance overexposes (default: 0)",
        check_share,
        lambda manifest, request: 0.0,
    )
    controlnets: tuple[str, ...] = _option(
        "names of the ControlNets to use, with commas, in the order of the control images (default: the "
        "first ones, as many as there are control images)",
        check_names,
        lambda manifest, request: tuple(
            # Without an image the check of the images names them all.
            controlnet.name
            for controlnet in manifest.controlnets[: len(request.control_images) or None]
        ),
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
    original_size: tuple[int, int] | None = _pair(
        "Stable Diffusion XL: height and width that a training picture like this one had, in pixels", "height,width"
    )
    crops_coords_top_left: tuple[int, int] | None = _pair(
        "Stable Diffusion XL: from where that picture was cut out, vertical first; 0,0 puts the subject in the middle",
        "0,0",
    )
    target_size: tuple[int, int] | None = _pair(
        "Stable Diffusion XL: height and width that the model was trained on it at", "height,width"
    )
    negative_original_size: tuple[int, int] | None = _pair("original_size, beside the negative prompt", "original_size")
    negative_crops_coords_top_left: tuple[int, int] | None = _pair(
        "crops_coords_top_left, beside the negative prompt", "crops_coords_top_left"
    )
    negative_target_size: tuple[int, int] | None = _pair("target_size, beside the negative prompt", "target_size")
    hires_scale: float | None = _option(
        "hires fix: draw once more at so many times the size, from the enlarged latents; the bundle must have that "
        "size (default: off)",
        or_none(check_hires_scale),
        lambda manifest, request: None,
    )
    hires_strength: float | None = _option(
        "hires fix: the share of its steps that run, 0 to 1; less stays nearer to the small picture (default: 0.7)",
        or_none(check_strength),
        lambda manifest, request: None if request.hires_scale is None else HIRES_STRENGTH,
    )
    hires_steps: int | None = _option(
        "hires fix: number of denoising steps, of which hires_strength run (default: num_inference_steps)",
        or_none(check_hires_steps),
        default_hires_steps,
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
        f"{IMAGE_STRENGTH}; with a mask 1)",
        check_strength,
        lambda manifest, request: IMAGE_STRENGTH if request.image is not None and request.mask_image is None else 1.0,
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
    masked_content: str = _option(
        "what a repainted part starts from if strength is below 1: original, fill (the colours around it), latent "
        "noise or latent nothing, as in Stable Diffusion web UI (default: original)",
        check_masked_content,
        lambda manifest, request: ORIGINAL,
        "NAME",
        str,
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
        image: the picture to start from, or its latents, float32 [1, C, h, w]. An inpainting model needs a picture, and
            a mask.
        mask_image: white where the model repaints `image`. The rest of the picture stays as it is.
        latents: float32 [1, C, h, w], standard normal, in place of the seed's noise.
        prompt_embeds, negative_prompt_embeds: float32 [1, T, D], encoded prompts in place of the texts.
        pooled_prompt_embeds, negative_pooled_prompt_embeds: float32 [1, P], their pooled outputs, for Stable Diffusion
            XL.
    """

    control_image: "Image.Image | list[Image.Image] | tuple[Image.Image, ...] | None" = None
    image: "Image.Image | np.ndarray | None" = None
    mask_image: "Image.Image | None" = None
    latents: "np.ndarray | None" = None
    prompt_embeds: "np.ndarray | None" = None
    negative_prompt_embeds: "np.ndarray | None" = None
    pooled_prompt_embeds: "np.ndarray | None" = None
    negative_pooled_prompt_embeds: "np.ndarray | None" = None

    @property
    def control_images(self) -> "list[Image.Image]":
        """The control images, one for each ControlNet in use."""
        if self.control_image is None:
            return []
        return list(self.control_image) if isinstance(self.control_image, list | tuple) else [self.control_image]


# In the order of the record: option name -> its description.
OPTIONS: dict[str, Option] = {field.name: field.metadata["option"] for field in dataclasses.fields(Settings)}


def per_controlnet(value: T | tuple[T, ...], count: int) -> tuple[T, ...]:
    """Return the value of each of `count` ControlNets."""
    return value if isinstance(value, tuple) else (value,) * count


def to_record(settings: Settings) -> dict[str, str]:
    """Return the settings by name: texts as they are, everything else as JSON. An option that is None is left out."""
    values = {name: getattr(settings, name) for name in OPTIONS}
    return {name: to_text(value) for name, value in values.items() if value is not None}

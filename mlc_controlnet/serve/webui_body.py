"""The bodies of Stable Diffusion web UI's txt2img and img2img, and of its ControlNet extension, as our requests.

Names and defaults are the web UI's (modules/processing.py, modules/api/models.py) and the extension's
(sd-webui-controlnet, internal_controlnet/args.py). A field that this pipeline has no use for is taken and left alone,
as other servers of this interface do; a field that would change the picture in a way that cannot be done is refused.
Where a client leaves out the size, the steps or the guidance, the bundle's own defaults are better than the web UI's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.lines import invert
from mlc_controlnet.runtime.batch import one_request_each
from mlc_controlnet.runtime.option_pairs import ETA_SAMPLERS
from mlc_controlnet.runtime.request import GenerateRequest
from mlc_controlnet.runtime.variant_options import check_size
from mlc_controlnet.serve import webui_names
from mlc_controlnet.serve.annotators.named import Annotator
from mlc_controlnet.serve.generate_body import annotate
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.models import ServedModel
from mlc_controlnet.serve.pictures import from_base64

INVERT = ("invert", "invert (from white bg & black line)")
CONTROLNET = "controlnet"  # of alwayson_scripts, in any case
RESCALE = "cfg rescale extension"  # of Seshelle/CFG_Rescale_webui: the share, then whether DDIM's steps are trailing


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=(), allow_inf_nan=False)


class ControlUnitBody(_Open):
    """One unit of the ControlNet extension."""

    enabled: bool = True
    module: str = "none"
    model: str = "None"
    weight: float = 1.0
    image: str | dict[str, Any] | None = None
    input_image: str | None = None  # its older name
    resize_mode: int | str = 1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    control_mode: int | str = 0
    threshold_a: float | None = None
    threshold_b: float | None = None


class DrawBody(_Open):
    """What txt2img and img2img share."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None  # its older name
    scheduler: str | None = None
    eta: float | None = None
    denoising_strength: float | None = None
    tiling: bool | None = None
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None
    send_images: bool = True


class TextToImageBody(DrawBody):
    """POST /sdapi/v1/txt2img."""

    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0


class ImageToImageBody(DrawBody):
    """POST /sdapi/v1/img2img."""

    init_images: list[str] | None = None
    mask: str | None = None
    mask_blur: float = 4
    resize_mode: int | str = 0
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0


@dataclass(frozen=True)
class WebuiRequest:
    """A body's requests, and the control images that its answer shows after the pictures."""

    requests: list[GenerateRequest]
    control_images: list[Image.Image]


def to_requests(
    body: DrawBody,
    model: ServedModel,
    options: dict[str, Any],
    limits: Limits,
    annotators: Mapping[str, Annotator],
) -> WebuiRequest:
    """Return a request for each picture that the body asks for. Raises UserError for what cannot be used.

    options: the server's, of GET /sdapi/v1/options, which `override_settings` change.
    """
    if body.tiling:
        raise UserError("tiling", "true", "false", "this pipeline draws no seamless textures")
    count = body.batch_size * body.n_iter
    if count > limits.images:
        raise UserError("batch_size x n_iter", str(count), f"{limits.images} at most", "ask again for more")
    width, height = _size(body, model)
    check_size("size", height, width, model.manifest)  # before a picture is fitted to it
    overridden = {**options, **(body.override_settings or {})}
    sampler, schedule = webui_names.sampler_and_schedule(body.sampler_name or body.sampler_index, body.scheduler)
    fields: dict[str, Any] = {
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "width": body.width,
        "height": body.height,
        "sampler": sampler,
        "schedule_type": schedule,
        "clip_skip": webui_names.clip_skip(overridden.get(webui_names.CLIP_STOP)),
    }
    if body.eta is not None and (sampler or model.manifest.samplers.default) in ETA_SAMPLERS:
        fields["eta"] = body.eta
    if rescale := _arguments(body, RESCALE):
        fields["guidance_rescale"] = rescale[0]
    if isinstance(body, ImageToImageBody):
        fields |= _start_fields(body, model, limits)
    elif isinstance(body, TextToImageBody) and body.enable_hr:
        fields |= _hires_fields(body)
    units = _units(body)
    controls = [_control_image(unit, body, model, fields.get("image"), limits, annotators) for unit in units]
    fields |= _control_fields(units, model)
    fields["control_image"] = controls or None
    seed = None if body.seed < 0 else body.seed
    requests = one_request_each(body.prompt, body.negative_prompt, count, seed, None, None, fields)
    return WebuiRequest(requests, controls)


def _hires_fields(body: TextToImageBody) -> dict[str, Any]:
    return {
        "hires_scale": body.hr_scale,
        "hires_steps": body.hr_second_pass_steps or None,
        "hires_strength": body.denoising_strength,
        "hires_upscaler": webui_names.upscaler(body.hr_upscaler),
    }


def _start_fields(body: ImageToImageBody, model: ServedModel, limits: Limits) -> dict[str, Any]:
    """Return the fields of a picture to start from, and of its mask."""
    if not body.init_images:
        raise UserError("init_images", "none", "one picture in base64", "use txt2img to draw without one")
    image = from_base64(body.init_images[0], "init_images", limits)
    strength = {"strength": 0.75 if body.denoising_strength is None else body.denoising_strength}
    size = _size(body, model)
    if body.mask is None:
        return {"image": fit(image, size, webui_names.resize_mode(body.resize_mode)), **strength}
    mask = from_base64(body.mask, "mask", limits).convert("L").resize(image.size)
    if body.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    content = webui_names.masked_content(body.inpainting_fill)  # at a denoising strength of 1 it has no effect
    fields = {
        "mask_blur": body.mask_blur,
        **strength,
        **({"masked_content": content} if strength["strength"] < 1 else {}),
    }
    if body.inpaint_full_res:
        return {"image": image, "mask_image": mask, "padding_mask_crop": body.inpaint_full_res_padding, **fields}
    mode = webui_names.resize_mode(body.resize_mode)
    return {"image": fit(image, size, mode), "mask_image": fit(mask, size, mode), **fields}


def fit(image: Image.Image, size: tuple[int, int], mode: int) -> Image.Image:
    """Fit a picture to a size in one of the web UI's RESIZE_MODES: stretch it, crop it, or repeat its edges."""
    width, height = size
    if mode == 0:
        return image.resize(size, Image.Resampling.LANCZOS)
    if mode == 1:
        return image  # the pipeline crops
    scale = min(width / image.width, height / image.height)
    inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    pads = [(top, height - inner.height - top), (left, width - inner.width - left)]
    pixels = np.asarray(inner)
    return Image.fromarray(np.pad(pixels, pads + [(0, 0)] * (pixels.ndim - 2), mode="edge"))


def _size(body: DrawBody, model: ServedModel) -> tuple[int, int]:
    return body.width or model.manifest.model.width, body.height or model.manifest.model.height


def _units(body: DrawBody) -> list[ControlUnitBody]:
    """Return the enabled units of the ControlNet extension. Raises UserError for units of another form."""
    arguments = _arguments(body, CONTROLNET)
    if not all(isinstance(unit, dict) for unit in arguments):
        wanted = 'a list of units: {"args": [{"image": ..., "model": ...}]}'
        raise UserError(f"alwayson_scripts.{CONTROLNET}", repr(arguments)[:80], wanted, "write each unit as an object")
    units = [ControlUnitBody.model_validate(unit) for unit in arguments]
    return [unit for unit in units if unit.enabled]


def _arguments(body: DrawBody, name: str) -> list[Any]:
    """Return the arguments of a script that is always on; none if the body does not name it."""
    scripts = {name.lower(): value for name, value in (body.alwayson_scripts or {}).items()}
    script = scripts.get(name) or {}
    arguments = (script.get("args") if isinstance(script, dict) else script) or []
    if not isinstance(arguments, list):
        wanted = 'a list: {"args": [...]}'
        raise UserError(f"alwayson_scripts.{name}", repr(arguments)[:80], wanted, "put the arguments into a list")
    return arguments


def _control_image(
    unit: ControlUnitBody,
    body: DrawBody,
    model: ServedModel,
    image: Image.Image | None,
    limits: Limits,
    annotators: Mapping[str, Annotator],
) -> Image.Image:
    """Return what the ControlNet sees. Without a picture of its own, a unit takes the one that img2img starts from."""
    given = unit.image or unit.input_image
    if isinstance(given, dict):
        given = given.get("image")
    if given:
        picture = from_base64(given, "ControlNet image", limits)
    elif image is not None:
        picture = image
    else:
        raise UserError("ControlNet image", "none", "a picture in base64", "give the unit an image, or disable it")
    picture = fit(picture, _size(body, model), webui_names.resize_mode(unit.resize_mode))
    module = unit.module.lower()
    if module in INVERT:
        return invert(picture)
    return annotate([picture], module, webui_names.tuned(annotators, module, unit.threshold_a, unit.threshold_b))[0]


def _control_fields(units: list[ControlUnitBody], model: ServedModel) -> dict[str, Any]:
    if not units:
        return {"controlnets": ()}
    return {
        "controlnets": tuple(_controlnet_name(unit.model, model) for unit in units),
        "controlnet_conditioning_scale": tuple(unit.weight for unit in units),
        "control_guidance_start": tuple(unit.guidance_start for unit in units),
        "control_guidance_end": tuple(unit.guidance_end for unit in units),
        "control_mode": tuple(webui_names.control_mode(unit.control_mode) for unit in units),
    }


def _controlnet_name(name: str, model: ServedModel) -> str:
    """Return a ControlNet's name without the hash that clients carry along. With one, `None` means it."""
    known = [one.name for one in model.manifest.controlnets]
    plain = name.partition(" [")[0]
    if plain in known:
        return plain
    if plain.lower() == "none" and len(known) == 1:
        return known[0]
    raise UserError("ControlNet model", repr(name), f"one of {', '.join(known)}", "choose one of these")

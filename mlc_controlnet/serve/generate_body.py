"""The body of POST /v1/generate: every option of the pipeline, made from the one record that declares them."""

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from starlette.datastructures import FormData, UploadFile

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.annotators import ANNOTATORS
from mlc_controlnet.runtime.batch import one_request_each
from mlc_controlnet.runtime.option_text import FORMS, true_or_false
from mlc_controlnet.runtime.request import OPTIONS, GenerateRequest, Settings
from mlc_controlnet.serve.annotators.named import Annotator
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.pictures import from_base64, to_base64

PICTURES = ("control_image", "image", "mask_image")
ARRAYS = ("latents", "prompt_embeds", "negative_prompt_embeds")
_PICTURE = "PNG, JPEG or WebP in base64, with or without data:image/...;base64,"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _option_fields() -> dict[str, Any]:
    """Return a pydantic field for each of the pipeline's options. None stands for an option that is left out."""
    hints = typing.get_type_hints(Settings)
    return {
        name: (hints[name] | None, Field(None, description=option.help)) if option.default else (hints[name], ...)
        for name, option in OPTIONS.items()
    }


_OWN_FIELDS: dict[str, Any] = {
    "model": (str | None, Field(None, description="one of GET /v1/models (default: the first)")),
    "num_images_per_prompt": (int, Field(1, ge=1, description="pictures of consecutive seeds")),
    "control_image": (str | list[str] | None, Field(None, description=f"{_PICTURE}; one for each ControlNet in use")),
    "image": (str | None, Field(None, description=f"the picture to start from: {_PICTURE}")),
    "mask_image": (str | None, Field(None, description=f"white where the picture is repainted: {_PICTURE}")),
    "annotator": (
        str | list[str] | None,
        Field(None, description=f"makes the control image from a picture: {', '.join(ANNOTATORS)}, or --annotator's"),
    ),
    "previews": (bool, Field(False, description="whether events of progress bring a small picture")),
    **{name: (list[Any] | None, Field(None, description="numbers, as the pipeline's array")) for name in ARRAYS},
}
GenerateBody = create_model("GenerateBody", __base__=_Strict, **_option_fields(), **_OWN_FIELDS)


def parse_json(data: Any) -> BaseModel:
    """Check the body's fields and their types. Raises UserError for the first that is wrong."""
    try:
        return GenerateBody.model_validate(data)
    except ValidationError as error:
        raise first_fault(error) from None


def first_fault(error: ValidationError) -> UserError:
    """Return the first fault that pydantic found."""
    return as_user_error(error.errors(include_url=False)[0], "body")


def as_user_error(fault: Mapping[str, Any], body: str) -> UserError:
    """Return a fault as pydantic describes it in the four parts of ours; `body` stands for the whole."""
    where = ".".join(str(part) for part in fault["loc"]) or body
    remedy = "GET /docs lists all options"
    match fault["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(fault["loc"][-1]), GenerateBody.model_fields, 1)
            remedy = f"did you mean {near[0]}?" if near else remedy
            return UserError(where, "an option that does not exist", "one that does", remedy)
        case "missing":
            return UserError(where, "nothing", "a value", remedy)
        case "model_type" | "model_attributes_type" | "dict_type":
            wanted = "a JSON object"
        case _:
            wanted = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    got = repr(fault.get("input"))
    return UserError(where, got if len(got) <= 80 else f"{got[:80]}...", wanted, remedy)


async def parse_form(form: FormData) -> BaseModel:
    """Read multipart/form-data: options as text, as the command line takes them, and pictures as files."""
    values: dict[str, Any] = {}
    for name in form:
        parts = form.getlist(name)
        texts = [to_base64(await part.read()) if isinstance(part, UploadFile) else part for part in parts]
        if name == "control_image":
            values[name] = texts
        elif name in OPTIONS:
            values[name] = _parse_option(name, texts[-1])
        elif name == "previews":
            values[name] = true_or_false(texts[-1])
        else:
            values[name] = texts[-1]
    return parse_json(values)


def _parse_option(name: str, text: str) -> Any:
    parse = OPTIONS[name].parse if OPTIONS[name].metavar else true_or_false
    try:
        return parse(text)
    except (ValueError, TypeError):
        raise UserError(name, repr(text), FORMS[parse.__name__], "GET /docs lists all options") from None


def to_requests(body: BaseModel, limits: Limits, annotators: Mapping[str, Annotator]) -> list[GenerateRequest]:
    """Decode the pictures of a body and return a request for each picture to draw. Raises UserError."""
    values = body.model_dump()
    count = values["num_images_per_prompt"]
    if count > limits.images:
        raise UserError("num_images_per_prompt", str(count), f"{limits.images} at most", "ask again for more")
    control_images = _control_images(values, limits, annotators)
    fixed: dict[str, Any] = {"control_image": control_images or None}
    for name in ("image", "mask_image"):
        fixed[name] = None if values[name] is None else from_base64(values[name], name, limits)
    for name in ARRAYS:
        fixed[name] = _array(name, values[name])
    latents, seed = fixed.pop("latents"), values.pop("seed")
    texts = values.pop("prompt"), values.pop("negative_prompt")
    options = {name: values[name] for name in OPTIONS if name in values}
    return one_request_each(*texts, count, seed, None, latents, {**fixed, **options})


def _control_images(values: dict[str, Any], limits: Limits, annotators: Mapping[str, Annotator]) -> list[Image.Image]:
    given = values["control_image"]
    texts = [] if given is None else [given] if isinstance(given, str) else given
    if len(texts) > limits.pictures:
        raise UserError("control_image", str(len(texts)), f"{limits.pictures} at most", "leave some out")
    pictures = [from_base64(text, "control_image", limits) for text in texts]
    return annotate(pictures, values["annotator"], annotators)


def annotate(
    pictures: Sequence[Image.Image], names: str | Sequence[str] | None, annotators: Mapping[str, Annotator]
) -> list[Image.Image]:
    """Make control images from pictures, each by its annotator; `names` is one for all, or one for each."""
    each = [names] * len(pictures) if names is None or isinstance(names, str) else list(names)
    if len(each) != len(pictures):
        raise UserError("annotator", f"{len(each)} names", f"one, or {len(pictures)}", "name one for each picture")
    return [_annotated(picture, name, annotators) for picture, name in zip(pictures, each, strict=True)]


def _annotated(picture: Image.Image, name: str | None, annotators: Mapping[str, Annotator]) -> Image.Image:
    if name is None or name == "none":
        return picture
    if name not in annotators:
        raise UserError("annotator", repr(name), f"one of {', '.join(annotators)}", "choose one of these")
    return annotators[name](picture.convert("RGB"))


def _array(name: str, numbers: list[Any] | None) -> np.ndarray | None:
    if numbers is None:
        return None
    try:
        return np.array(numbers, np.float32)
    except (ValueError, TypeError):
        raise UserError(name, "lists of different lengths", "an array of numbers", "make it rectangular") from None

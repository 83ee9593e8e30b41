"""Build the torch modules of a model's parts, and add the defaults to their configurations."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.errors import UserError

_CLASSES = {"unet": UNet2DConditionModel, "controlnet": ControlNetModel, "vae": AutoencoderKL}


def with_defaults(part: str, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Add the class's defaults to a configuration: older files leave out options that were added later.

    Args:
        where: the file or folder, for errors.

    Raises:
        UserError: an option of the text encoder has another type than transformers wants.
    """
    if part == "text_encoder":
        try:
            resolved: dict[str, Any] = CLIPTextConfig(**config).to_dict()
        except Exception as error:  # transformers raises its validator's own classes
            raise _no_module(part, where, error) from error
        return resolved
    parameters = inspect.signature(_CLASSES[part].__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {**defaults, **config}


def build_empty(source: PartSource, part: str) -> nn.Module:
    """Build the part's module on the meta device: it has shapes and no values.

    Raises:
        UserError: no module can be built from the configuration.
    """
    config = dict(source.config)
    try:
        with torch.device("meta"):
            if part == "text_encoder":
                module: nn.Module = CLIPTextModel(CLIPTextConfig(**config))
            else:
                module = _CLASSES[part].from_config(config)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise _no_module(part, source.where, error) from error
    return module


def _no_module(part: str, where: str, error: Exception) -> UserError:
    cause = " ".join(str(error).split())
    return UserError(
        f"{part} {where}", f"a configuration that builds no {part} ({cause})", "diffusers'", "save it again"
    )

"""The torch modules of a model's parts, and their configurations with every default filled in."""

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


def with_defaults(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as the part's class understands it: older files leave out what was added later."""
    if part == "text_encoder":
        resolved: dict[str, Any] = CLIPTextConfig(**config).to_dict()
        return resolved
    parameters = inspect.signature(_CLASSES[part].__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {**defaults, **config}


def build_empty(source: PartSource, part: str) -> nn.Module:
    """The part's module on the meta device: shapes and no values.

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
        raise UserError(
            f"{part} {source.where}", f"a configuration that builds no {part} ({error})", "diffusers'", "save it again"
        ) from error
    return module

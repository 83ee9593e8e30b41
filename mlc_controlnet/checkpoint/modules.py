"""Build the torch modules of a model's parts, and add the defaults to their configurations."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.checkpoint.options import is_tiny, is_union
from mlc_controlnet.checkpoint.source import PREVIEW_VAE, PartSource
from mlc_controlnet.checkpoint.union_controlnet import ControlFuser
from mlc_controlnet.components import TEXT_ENCODER_2, TEXT_ENCODERS
from mlc_controlnet.errors import UserError

_CLASSES = {
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "vae": AutoencoderKL,
    PREVIEW_VAE: AutoencoderKL,
}
_NOT_AN_OPTION = "block_out_channels"  # AutoencoderTiny writes it into its configuration, and does not read it


def with_defaults(part: str, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Add the class's defaults to a configuration: older files leave out options that were added later.

    Args:
        where: the file or folder, for errors.

    Raises:
        UserError: an option of the text encoder has another type than transformers wants.
    """
    if part in TEXT_ENCODERS:
        try:
            resolved: dict[str, Any] = CLIPTextConfig(**config).to_dict()
        except Exception as error:  # transformers raises its validator's own classes
            raise _no_module(part, where, error) from error
        return resolved
    parameters = inspect.signature(_class_of(part, config).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {
        **defaults,
        **{key: value for key, value in config.items() if not (is_tiny(config) and key == _NOT_AN_OPTION)},
    }


def build_empty(source: PartSource, part: str) -> nn.Module:
    """Build the part's module on the meta device: it has shapes and no values.

    Raises:
        UserError: no module can be built from the configuration.
    """
    config = dict(source.config)
    try:
        with torch.device("meta"):
            if part in TEXT_ENCODERS:
                module: nn.Module = _text_encoder(CLIPTextConfig(**config), projects=part == TEXT_ENCODER_2)
            elif part == "controlnet" and is_union(config):
                module = _union_of_one_type(config)
            elif part == "controlnet" and config.get("mid_block_type", "") is None:
                module = _without_middle_block(config)
            else:
                module = _class_of(part, config).from_config(config)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise _no_module(part, source.where, error) from error
    for name in source.unread:
        setattr(module, name, nn.Identity())
    if part == PREVIEW_VAE:
        module.encoder = nn.Identity()
        module.quant_conv = None
    return module


def _class_of(part: str, config: Mapping[str, Any]) -> Any:
    if part == "controlnet" and is_union(config):
        return ControlNetUnionModel
    return AutoencoderTiny if is_tiny(config) else _CLASSES[part]


def _text_encoder(config: CLIPTextConfig, projects: bool) -> CLIPTextModel:
    """Build a text encoder, with the projection of its pooled output if the model reads that."""
    module = CLIPTextModel(config)
    if projects:
        module.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
    return module


def _without_middle_block(config: Mapping[str, Any]) -> ControlNetModel:
    """Build a ControlNet for a UNet without a middle block.

    diffusers' class runs one whose middle block is None, but its constructor refuses to build it.
    """
    module = ControlNetModel.from_config({**config, "mid_block_type": "UNetMidBlock2D"})
    module.mid_block = None
    module.register_to_config(mid_block_type=None)
    return module


def _union_of_one_type(config: Mapping[str, Any]) -> ControlNetModel:
    """Build a ControlNet with the layers that a union ControlNet adds to it: see `union_controlnet.py`."""
    known = inspect.signature(ControlNetModel.__init__).parameters
    module = ControlNetModel.from_config({option: value for option, value in config.items() if option in known})
    module.control_fuser = ControlFuser(config["block_out_channels"][0], config["num_trans_layer"])
    module.register_to_config(num_trans_layer=config["num_trans_layer"])  # which is a part of its graph
    return module


def _no_module(part: str, where: str, error: Exception) -> UserError:
    cause = " ".join(str(error).split())
    return UserError(
        f"{part} {where}", f"a configuration that builds no {part} ({cause})", "diffusers'", "save it again"
    )

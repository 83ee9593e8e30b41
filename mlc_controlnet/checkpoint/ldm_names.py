"""Names of the original Stable Diffusion and ControlNet code -> diffusers' names, by diffusers' own converters.

The converters take what they know and say nothing of the rest, and leave None where something is missing: both are
told here, by the file's own names.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.errors import UserError

Tensors = dict[str, torch.Tensor]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPEN_CLIP_PREFIX = "cond_stage_model.model."
TURBO_CLIP_PREFIX = "conditioner.embedders.0.model."  # of SD-Turbo, which is a Stable Diffusion 2
CONTROLNET_PREFIX = "control_model."


def convert_unet(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    return _account(source, convert_ldm_unet_checkpoint(dict(source), config), where)


def convert_controlnet(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    return _account(source, convert_controlnet_checkpoint(dict(source), config), where)


def convert_vae(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """The attention's 1x1 convolutions are linear layers in diffusers; as such the converter passes them through."""
    linear = {
        key: tensor.reshape(tensor.shape[:2]) if ".attn_1." in key and tensor.ndim > 2 else tensor
        for key, tensor in source.items()
    }
    return _account(linear, convert_ldm_vae_checkpoint(dict(linear), config), where)


def convert_open_clip(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """The penultimate layer's output is what Stable Diffusion 2 reads: the last layer and the projection go."""
    layers = config["num_hidden_layers"]
    names = (f"transformer.resblocks.{layers}.", "text_projection", "logit_scale", "attn_mask")
    unread = tuple(OPEN_CLIP_PREFIX + name for name in names)
    read = {key: tensor for key, tensor in source.items() if not key.startswith(unread)}
    text_model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    converted = convert_open_clip_checkpoint(text_model, dict(read), prefix=OPEN_CLIP_PREFIX)
    whole = {key: tensor for key, tensor in read.items() if ".attn.in_proj_" not in key}  # the others are cut in three
    converted = _account(whole, converted, where)
    return {key.removeprefix("text_model."): tensor for key, tensor in converted.items()}


def convert_clip(source: Tensors) -> Tensors:
    """CLIP has the names of transformers already."""
    return {key.removeprefix(CLIP_PREFIX).removeprefix("text_model."): tensor for key, tensor in source.items()}


def _account(source: Tensors, converted: Mapping[str, torch.Tensor | None], where: str) -> Tensors:
    """Raises UserError that names what the converter did not take."""
    taken = {id(tensor) for tensor in converted.values()}
    extra = [key for key, tensor in source.items() if id(tensor) not in taken]
    if extra:
        raise UserError(
            where,
            f"{some(extra)} that have no place in the model",
            "the tensors of Stable Diffusion 1.x or 2.x and its ControlNets",
            "check that the file is of such a model",
        )
    return {key: tensor for key, tensor in converted.items() if tensor is not None}

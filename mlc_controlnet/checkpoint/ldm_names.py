"""Names of the original Stable Diffusion and ControlNet code -> diffusers' names, by diffusers' own converters.

The converters ignore tensors that they do not know, and return None for tensors that are missing. The functions here
report both, by the file's own names.
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

from mlc_controlnet.checkpoint.ldm_config import GUIDANCE_PROJECTION
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.errors import UserError

Tensors = dict[str, torch.Tensor]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPEN_CLIP_PREFIX = "cond_stage_model.model."
TURBO_CLIP_PREFIX = "conditioner.embedders.0.model."  # of SD-Turbo, which is a Stable Diffusion 2
XL_CLIP_PREFIX = "conditioner.embedders.0.transformer."  # the two text encoders of Stable Diffusion XL
XL_OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."
CONTROLNET_PREFIX = "control_model."


def convert_unet(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """Return the UNet's tensors under diffusers' names; raise UserError if one has no place.

    diffusers' converter does not know the projection of the guidance scale.
    """
    others = {key: tensor for key, tensor in source.items() if key != UNET_PREFIX + GUIDANCE_PROJECTION}
    converted = _account(others, convert_ldm_unet_checkpoint(dict(others), config), where)
    if len(others) < len(source):
        converted[GUIDANCE_PROJECTION] = source[UNET_PREFIX + GUIDANCE_PROJECTION]
    return converted


def convert_controlnet(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """Return the ControlNet's tensors under diffusers' names; raise UserError if one has no place."""
    added = {_ADDED[key]: source[key] for key in _ADDED if key in source}  # which diffusers' converter does not know
    others = {key: tensor for key, tensor in source.items() if key not in _ADDED}
    return _account(others, convert_controlnet_checkpoint(dict(others), config), where) | added


def convert_vae(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """Convert the VAE. Its attention has 1x1 convolutions, and diffusers' has linear layers, which have two axes."""
    linear = {
        key: tensor.reshape(tensor.shape[:2]) if ".attn_1." in key and tensor.ndim > 2 else tensor
        for key, tensor in source.items()
    }
    return _account(linear, convert_ldm_vae_checkpoint(dict(linear), config), where)


def convert_open_clip(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """Convert OpenCLIP's encoder without its last layer and projection: Stable Diffusion 2 reads the layer before."""
    layers = config["num_hidden_layers"]
    names = (f"transformer.resblocks.{layers}.", "text_projection", "logit_scale", "attn_mask")
    unread = tuple(OPEN_CLIP_PREFIX + name for name in names)
    read = {key: tensor for key, tensor in source.items() if not key.startswith(unread)}
    text_model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    converted = convert_open_clip_checkpoint(text_model, dict(read), prefix=OPEN_CLIP_PREFIX)
    whole = {
        key: tensor for key, tensor in read.items() if ".attn.in_proj_" not in key
    }  # the converter cuts the others in three
    converted = _account(whole, converted, where)
    return {key.removeprefix("text_model."): tensor for key, tensor in converted.items()}


def convert_projected_open_clip(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    """Convert the second text encoder of Stable Diffusion XL, with its last layer and its projection."""
    key = XL_OPEN_CLIP_PREFIX + "text_projection"
    renamed = {
        OPEN_CLIP_PREFIX + name.removeprefix(XL_OPEN_CLIP_PREFIX): tensor
        for name, tensor in source.items()
        if name != key
    }
    converted = convert_open_clip(renamed, config, where)
    return {**converted, "text_projection.weight": source[key].T}


def convert_clip(source: Tensors) -> Tensors:
    """Drop the prefix. CLIP's tensors already have transformers' names."""
    prefixes = (CLIP_PREFIX, XL_CLIP_PREFIX)
    own = {next(key.removeprefix(p) for p in prefixes if key.startswith(p)): tensor for key, tensor in source.items()}
    return {key.removeprefix("text_model."): tensor for key, tensor in own.items()}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
# The added embedding of Stable Diffusion XL.
_ADDED = {
    f"label_emb.0.{number}.{leaf}": f"add_embedding.linear_{layer}.{leaf}"
    for number, layer in ((0, 1), (2, 2))
    for leaf in ("weight", "bias")
}
_MIDDLE = {("resnets", "0"): "0", ("attentions", "0"): "1", ("resnets", "1"): "2"}


def original_unet_module(name: str, layers_per_block: int, has_attention: bool) -> str:
    """diffusers' name of a module of the UNet -> its name in the original code, in which all blocks are numbered.

    Args:
        name: for example `down_blocks.0.resnets.1.conv1`.
        has_attention: whether the module's block has attentions. They come before its upsampler.
    """
    side, *path = name.split(".")
    if side not in ("down_blocks", "mid_block", "up_blocks"):
        return _OUTSIDE_BLOCKS.get(name, name)
    if side == "mid_block":
        kind, number, *rest = path
        return ".".join(["middle_block", _MIDDLE[kind, number], *_inside(kind, rest)])
    block, kind, number, *rest = path
    if side == "down_blocks":
        first = 1 + int(block) * (layers_per_block + 1)  # after conv_in; a downsampler ends each block
        position = layers_per_block if kind == "downsamplers" else int(number)
        child = "1" if kind == "attentions" else "0"
        return ".".join(["input_blocks", str(first + position), child, *_inside(kind, rest)])
    first = int(block) * (layers_per_block + 1)
    position = layers_per_block if kind == "upsamplers" else int(number)
    child = {"resnets": "0", "attentions": "1", "upsamplers": "2" if has_attention else "1"}[kind]
    return ".".join(["output_blocks", str(first + position), child, *_inside(kind, rest)])


def original_controlnet_module(name: str, layers_per_block: int, hint_levels: int) -> str:
    """diffusers' name of a module of the ControlNet -> its name in the original code.

    Args:
        name: for example `controlnet_down_blocks.3`.
        hint_levels: how many widths the layers have that read the control image: 4 where a latent cell has 8 pixels.
    """
    side, *path = name.split(".")
    if side == "controlnet_down_blocks":
        return f"zero_convs.{path[0]}.0"
    if side == "controlnet_mid_block":
        return "middle_block_out.0"
    if side == "controlnet_cond_embedding":  # activations lie between the layers, so their numbers are even
        layer = {"conv_in": 0, "conv_out": 4 * hint_levels - 2}.get(path[0])
        return f"input_hint_block.{2 * int(path[1]) + 2 if layer is None else layer}"
    return original_unet_module(name, layers_per_block, has_attention=False)  # only upsamplers depend on it


def _inside(kind: str, path: list[str]) -> list[str]:
    """Return the rest of a module's name, inside its residual block, transformer or resampler."""
    if kind == "resnets" and path:
        return [_RESNET.get(path[0], path[0]), *path[1:]]
    if kind == "downsamplers":
        return ["op", *path[1:]]
    return path


def _account(source: Tensors, converted: Mapping[str, torch.Tensor | None], where: str) -> Tensors:
    """Check that the converter used every tensor of `source`.

    Raises:
        UserError: names the tensors that it did not use.
    """
    taken = {id(tensor) for tensor in converted.values()}
    extra = [key for key, tensor in source.items() if id(tensor) not in taken]
    if extra:
        raise UserError(
            where,
            f"{some(extra)} that have no place in the model",
            "the tensors of Stable Diffusion 1.x, 2.x or XL and its ControlNets",
            "check that the file is of such a model",
        )
    return {key: tensor for key, tensor in converted.items() if tensor is not None}

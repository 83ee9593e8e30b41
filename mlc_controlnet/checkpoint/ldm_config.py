"""Infer configurations for files in the original layout, which hold only weights.

The shapes of the file's tensors decide every width. Shapes do not show activations, group counts, block types and the
number of heads. These are the same for all models of a family, and `base_models/` lists them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from mlc_controlnet.errors import UserError

BASE_MODELS = Path(__file__).parent / "base_models"
# Of a latent consistency model. The original code has no such layer, and such files keep diffusers' name.
GUIDANCE_PROJECTION = "time_embedding.cond_proj.weight"  # [width of the sinusoids, time_cond_proj_dim]
OPEN_CLIP_LAYERS = 24  # of OpenCLIP's ViT-H, the text encoder of Stable Diffusion 2
HEAD_SIZE = 64  # of CLIP's and OpenCLIP's text encoders, and of every attention in Stable Diffusion 2's UNet


class Shapes:
    """The sizes of a file's tensors, by name without a prefix."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], prefix: str, where: str) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._where = where

    def size(self, key: str, axis: int) -> int:
        """Return the size of one axis of a tensor.

        Raises:
            UserError: the tensor is missing or has no such axis.
        """
        tensor = self._tensors.get(self._prefix + key)
        if tensor is None:
            self._refuse(key, "no such tensor")
        if tensor.ndim <= axis:
            self._refuse(key, f"{tensor.ndim} axes")
        return int(tensor.shape[axis])

    def has(self, key: str) -> bool:
        """Return whether the checkpoint has a tensor named `key`."""
        return self._prefix + key in self._tensors

    def count(self, prefix: str) -> int:
        """Count the layers of a stack: the different numbers that follow `prefix` in the names."""
        start = self._prefix + prefix
        return len({key[len(start) :].split(".")[0] for key in self._tensors if key.startswith(start)})

    def _refuse(self, key: str, got: str) -> NoReturn:
        raise UserError(
            f"{self._where}: {self._prefix}{key}",
            got,
            "the layout of Stable Diffusion 1.x, 2.x or XL",
            "check that the file is the whole model",
        )


def base_model(is_second: bool, xl: bool = False) -> dict[str, Any]:
    """Return the configuration that all models of Stable Diffusion 1.x, of 2.x, or of XL have in common."""
    file = BASE_MODELS / ("sdxl.json" if xl else "sd2.json" if is_second else "sd1.json")
    base: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return base


def unet_config(base: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the UNet's configuration, from names such as `input_blocks.*`."""
    config = {**_encoder_config(base, shapes, _names(base, _ORIGINAL)), "out_channels": shapes.size("out.2.weight", 0)}
    if shapes.has(GUIDANCE_PROJECTION):
        config["time_cond_proj_dim"] = shapes.size(GUIDANCE_PROJECTION, 1)
    return config


def controlnet_config(base: Mapping[str, Any], shapes: Shapes, in_diffusers_names: bool = False) -> dict[str, Any]:
    """Return the ControlNet's configuration. A ControlNet copies the UNet's encoder (arXiv 2302.05543, section 3.2)."""
    if in_diffusers_names and shapes.has(_DIFFUSERS.added):
        base = {**base, "unet": {**base["unet"], **_xl_blocks(base["unet"]["down_block_types"], shapes)}}
    names = _names(base, _DIFFUSERS if in_diffusers_names else _ORIGINAL)
    config = _encoder_config(base, shapes, names)
    del config["up_block_types"], config["sample_size"]
    return {
        **config,
        "conditioning_channels": shapes.size(names.hints[0], 1),
        "conditioning_embedding_out_channels": [shapes.size(hint, 0) for hint in names.hints],
    }


def _xl_blocks(types: Sequence[str], shapes: Shapes) -> dict[str, Any]:
    """Return the kinds of blocks of a ControlNet for Stable Diffusion XL. The smaller ones that diffusers has published
    (`-mid`, `-small`) lack the transformers of some levels, or of all.
    """
    attends = [shapes.count(f"down_blocks.{level}.attentions.") > 0 for level in range(len(types))]
    return {
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if shapes.count("mid_block.attentions.") else "UNetMidBlock2D",
    }


@dataclass(frozen=True)
class _EncoderNames:
    """The tensors that show the widths of the encoder, which UNet and ControlNet share."""

    conv_in: str
    levels: tuple[str, ...]  # a convolution of each level's first block
    context: str | None  # the first layer that reads the text; None if no level does
    transformers: tuple[str, ...]  # of Stable Diffusion XL: the transformer layers of each level
    added: str  # the first layer of the added embedding, which only Stable Diffusion XL has
    hints: tuple[str, ...]  # of the ControlNet: the layers that read the control image and change its channels


_ORIGINAL = _EncoderNames(
    conv_in="input_blocks.0.0.weight",
    levels=tuple(f"input_blocks.{block}.0.out_layers.3.weight" for block in (1, 4, 7, 10)),
    context="input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    transformers=tuple(f"input_blocks.{block}.1.transformer_blocks." for block in (1, 4, 7)),
    added="label_emb.0.0.weight",
    hints=tuple(f"input_hint_block.{layer}.weight" for layer in (0, 4, 8, 12)),
)
_DIFFUSERS = _EncoderNames(
    conv_in="conv_in.weight",
    levels=tuple(f"down_blocks.{level}.resnets.0.conv2.weight" for level in range(4)),
    context="down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    transformers=tuple(f"down_blocks.{level}.attentions.0.transformer_blocks." for level in range(3)),
    added="add_embedding.linear_1.weight",
    hints=tuple(
        f"controlnet_cond_embedding.{layer}.weight" for layer in ("conv_in", "blocks.1", "blocks.3", "blocks.5")
    ),
)


def _names(base: Mapping[str, Any], names: _EncoderNames) -> _EncoderNames:
    """Return the names for a base model's number of levels, and its first level with attention."""
    types = base["unet"]["down_block_types"]
    readers = (names.transformers[level] for level, kind in enumerate(types) if kind == "CrossAttnDownBlock2D")
    reader = next((f"{transformers}0.attn2.to_k.weight" for transformers in readers), None)
    return dataclasses.replace(names, levels=names.levels[: len(types)], context=reader)


def _encoder_config(base: Mapping[str, Any], shapes: Shapes, names: _EncoderNames) -> dict[str, Any]:
    channels = [shapes.size(level, 0) for level in names.levels]
    heads = base["unet"]["attention_head_dim"]  # diffusers' name for the number of heads
    added: dict[str, Any] = {}
    if shapes.has(names.added):
        layers = [max(shapes.count(level), 1) for level in names.transformers]
        added["transformer_layers_per_block"] = layers
        added["projection_class_embeddings_input_dim"] = shapes.size(names.added, 1)
    return {
        **base["unet"],
        **added,
        "in_channels": shapes.size(names.conv_in, 1),
        "block_out_channels": channels,
        "cross_attention_dim": None if names.context is None else shapes.size(names.context, 1),
        "attention_head_dim": [c // HEAD_SIZE for c in channels] if heads is None else heads,
    }


def vae_config(base: Mapping[str, Any], shapes: Shapes, in_diffusers_names: bool = False) -> dict[str, Any]:
    """Return the VAE's configuration, from names such as `encoder.down.*` or `encoder.down_blocks.*`."""
    level = "encoder.down_blocks.{}.resnets.0" if in_diffusers_names else "encoder.down.{}.block.0"
    return {
        **base["vae"],
        "block_out_channels": [shapes.size(f"{level.format(n)}.conv2.weight", 0) for n in range(4)],
        "latent_channels": shapes.size("post_quant_conv.weight", 0),
    }


def clip_config(base: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the text encoder's configuration, from transformers' names `embeddings.*` and `encoder.layers.*`."""
    return _text_config(
        base,
        shapes,
        words="embeddings.token_embedding.weight",
        positions="embeddings.position_embedding.weight",
        first_linear="encoder.layers.0.mlp.fc1.weight",
        layers=shapes.count("encoder.layers."),
    )


def open_clip_config(base: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the text encoder's configuration, from OpenCLIP's names `transformer.resblocks.*`.

    Stable Diffusion 2 does not read the last layer, so the configuration is without it.
    """
    return _text_config(
        base,
        shapes,
        words="token_embedding.weight",
        positions="positional_embedding",
        first_linear="transformer.resblocks.0.mlp.c_fc.weight",
        layers=_layers_read(shapes),
    )


def projected_open_clip_config(base: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Do the same for the second text encoder of Stable Diffusion XL, which reads every layer and the projection."""
    config = _text_config(
        {"text_encoder": base["text_encoder_2"]},
        shapes,
        words="token_embedding.weight",
        positions="positional_embedding",
        first_linear="transformer.resblocks.0.mlp.c_fc.weight",
        layers=shapes.count("transformer.resblocks."),
    )
    return {**config, "projection_dim": shapes.size("text_projection", 1)}


def _layers_read(shapes: Shapes) -> int:
    """Return how many layers of the file's OpenCLIP encoder Stable Diffusion 2 reads.

    The whole encoder has one layer more, and a projection after it. Some converters leave out both, others the layer
    or only the projection.
    """
    layers = shapes.count("transformer.resblocks.")
    if layers in (OPEN_CLIP_LAYERS - 1, OPEN_CLIP_LAYERS):
        return OPEN_CLIP_LAYERS - 1
    return layers - 1 if shapes.has("text_projection") else layers


def _text_config(
    base: Mapping[str, Any],
    shapes: Shapes,
    words: str,
    positions: str,
    first_linear: str,
    layers: int,
) -> dict[str, Any]:
    width = shapes.size(words, 1)
    return {
        **base["text_encoder"],
        "vocab_size": shapes.size(words, 0),
        "hidden_size": width,
        "max_position_embeddings": shapes.size(positions, 0),
        "intermediate_size": shapes.size(first_linear, 0),
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_SIZE,
    }

"""The two text encoders of Stable Diffusion XL (arXiv 2307.01952, section 2.1): what the model reads of each.

The context is both encoders' outputs of their last layer but one, without the final norm, side by side. The second
encoder's last layer, norm and projection make the pooled output. Of the first one, nothing reads the last layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.errors import UserError

TEXT_TIME = "text_time"  # diffusers' name of the added embedding: pooled output and time ids
REFINER = "the refiner of Stable Diffusion XL, which no ControlNet is made for"
_FINAL_NORM = "final_layer_norm"


def is_xl(unet: Mapping[str, Any]) -> bool:
    """Return whether a UNet's configuration is of Stable Diffusion XL: it reads a pooled output and time ids."""
    return unet.get("addition_embed_type") == TEXT_TIME


def without_last_layer(source: PartSource) -> PartSource:
    """Return the first text encoder without the layer and the norm that Stable Diffusion XL does not read.

    Raises:
        UserError: it has one layer only.
    """
    last = source.config["num_hidden_layers"] - 1
    if last < 1:
        got, wanted = f"{last + 1} layers", "two at least: the last one is not read"
        raise UserError(f"text_encoder {source.where}", got, wanted, "take the text encoder of Stable Diffusion XL")
    unread = (f"encoder.layers.{last}.", f"{_FINAL_NORM}.", "text_projection.")

    def read() -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in source.read().items() if not key.startswith(unread)}

    config = {**source.config, "num_hidden_layers": last}
    return dataclasses.replace(source, config=config, read=read, unread=(_FINAL_NORM,))

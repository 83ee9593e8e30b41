"""A checkpoint before it is loaded: each part's configuration, and the function that reads its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mlc_controlnet.checkpoint.weight_update import Updates

PARTS = ("text_encoder", "text_encoder_2", "unet", "controlnet", "vae")
PREVIEW_VAE = "preview_vae"  # a part that no model has of its own: the decoder of a second VAE, for previews


@dataclass(frozen=True)
class PartSource:
    """One part of a model.

    Attributes:
        where: the file or folder, for errors.
        config: the options of diffusers' or transformers' config.json.
        read: parses the weights and gives them the names of the part's module. It is called only if the part is built.
        updates: what the weights that `read` returns lack, by the same names: a Control-LoRA is a base and updates.
        unread: the names of modules that the model never runs. Their weights are left out.
        control_type: of a union ControlNet, one of `controlnet_names.KINDS`; "" for any other part.
    """

    where: str
    config: Mapping[str, Any]
    read: Callable[[], dict[str, torch.Tensor]]
    updates: Updates = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    control_type: str = ""


@dataclass(frozen=True)
class TokenizerSource:
    """A file of the tokenizers library and the texts of its bos_token, eos_token and pad_token."""

    json: bytes
    special_tokens: Mapping[str, str]


@dataclass(frozen=True)
class ModelSource:
    """A model whose configuration is known, and whose weights are not read yet.

    Attributes:
        parts: text_encoder, unet and vae; text_encoder_2 of Stable Diffusion XL; and controlnet, controlnet_2, ... if
            the model has its own.
        read_tokenizer: finds the tokenizer that belongs to the model.
        recommended: the settings that the model recommends itself, by their names in `Defaults`.
        read_tokenizer_2: the same for the second text encoder; None without one.
        zeros_for_empty_prompt: whether zeros take the place of an encoded negative prompt that is empty.
    """

    name: str
    parts: Mapping[str, PartSource]
    scheduler_config: Mapping[str, Any]
    read_tokenizer: Callable[[], TokenizerSource]
    recommended: Mapping[str, Any]
    read_tokenizer_2: Callable[[], TokenizerSource] | None = None
    zeros_for_empty_prompt: bool = False

"""What a UNet or a ControlNet of Stable Diffusion XL reads besides the context: the pooled output and the time ids."""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from mlc_controlnet.capture.sinusoids import TimeIdsEmbedding
from mlc_controlnet.checkpoint.text_encoders import is_xl

Model = TypeVar("Model", UNet2DConditionModel, ControlNetModel)


def with_exact_sinusoids(model: Model) -> Model:
    """Return the model with an embedding of time ids that is exact on every device; it shares all weights."""
    if not is_xl(model.config):
        return model
    changed = copy.copy(model)
    config = model.config
    embed = TimeIdsEmbedding(config.addition_time_embed_dim, config.flip_sin_to_cos, config.freq_shift)
    changed._modules = {**model._modules, "add_time_proj": embed}
    return changed


def take_added(
    model: UNet2DConditionModel | ControlNetModel, inputs: Sequence[torch.Tensor]
) -> tuple[dict[str, Any], Sequence[torch.Tensor]]:
    """Split the inputs after the context into diffusers' `added_cond_kwargs` and the others."""
    if not is_xl(model.config):
        return {}, inputs
    text_embeds, time_ids, *others = inputs
    # The two are joined before they are rounded.
    return {"added_cond_kwargs": {"text_embeds": text_embeds.float(), "time_ids": time_ids}}, others

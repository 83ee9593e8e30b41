"""The ControlNet: sample, timestep, context, control embedding, scale -> residuals."""

import copy

import torch
from diffusers import ControlNetModel
from torch import nn


class ControlNet(nn.Module):
    """diffusers' ControlNet without its control embedding (arXiv 2302.05543, section 3.2).

    The conditioning scale is an input, so that users can change it without another build.
    """

    def __init__(self, model: ControlNetModel) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = {**model._modules, "controlnet_cond_embedding": nn.Identity()}
        # diffusers would flip the control embedding: it expects the control image there.
        self.model.register_to_config(controlnet_conditioning_channel_order="rgb")

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        control_embedding: torch.Tensor,  # [B, C, h, w]
        conditioning_scale: torch.Tensor,  # [1] float32
    ) -> tuple[torch.Tensor, ...]:
        dtype = context.dtype
        down, mid = self.model(
            sample.to(dtype),
            timestep,
            encoder_hidden_states=context,
            controlnet_cond=control_embedding,
            conditioning_scale=1.0,
            return_dict=False,
        )
        scale = conditioning_scale.to(dtype)
        return (*(residual * scale for residual in down), mid * scale)

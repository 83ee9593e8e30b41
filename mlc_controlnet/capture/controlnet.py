"""The ControlNet: sample, timestep, context, control image, scale -> residuals."""

import torch
from diffusers import ControlNetModel
from torch import nn


class ControlNet(nn.Module):
    """diffusers' ControlNet with the conditioning scale as a run-time input (arXiv 2302.05543, section 3.2)."""

    def __init__(self, model: ControlNetModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        control_image: torch.Tensor,  # [B, 3, H, W] float32, 0..1
        conditioning_scale: torch.Tensor,  # [1] float32
    ) -> tuple[torch.Tensor, ...]:
        dtype = context.dtype
        down, mid = self.model(
            sample.to(dtype),
            timestep,
            encoder_hidden_states=context,
            controlnet_cond=control_image.to(dtype),
            conditioning_scale=1.0,
            return_dict=False,
        )
        scale = conditioning_scale.to(dtype)
        return (*(residual * scale for residual in down), mid * scale)

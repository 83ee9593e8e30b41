"""The UNet: sample, timestep, context, residuals -> the model's output."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn


class UNet(nn.Module):
    """diffusers' UNet with the ControlNet's residuals added to its skip connections and its middle block."""

    def __init__(self, model: UNet2DConditionModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        *residuals: torch.Tensor,
    ) -> torch.Tensor:
        output = self.model(
            sample.to(context.dtype),
            timestep,
            encoder_hidden_states=context,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
        )[0]
        return output.float()

"""The UNet: sample, timestep, context, residuals -> the model's output."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from mlc_controlnet.capture.guidance_embedding import GuidanceEmbedding


class UNet(nn.Module):
    """diffusers' UNet with the ControlNet's residuals added to its skip connections and its middle block.

    A UNet without a middle block adds the last residual in its place.
    """

    def __init__(self, model: UNet2DConditionModel) -> None:
        super().__init__()
        self.model = model
        width = model.config.time_cond_proj_dim
        self.embed_guidance = None if width is None else GuidanceEmbedding(width)

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        *others: torch.Tensor,  # the guidance scale, [1] float32, of a model that embeds it; then the residuals
    ) -> torch.Tensor:
        dtype = context.dtype
        guidance, residuals = None, others
        if self.embed_guidance is not None:
            guidance, residuals = self.embed_guidance(others[0]).to(dtype), others[1:]
        output = self.model(
            sample.to(dtype),
            timestep,
            timestep_cond=guidance,
            encoder_hidden_states=context,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
        )[0]
        return output.float()

"""The control embedding: control image -> what the ControlNet adds to its sample at every step."""

import torch
from diffusers import ControlNetModel
from torch import nn


class ControlEmbedding(nn.Module):
    """The ControlNet's convolutions on the control image alone (arXiv 2302.05543, eq. 10): once a picture."""

    def __init__(self, model: ControlNetModel) -> None:
        super().__init__()
        self.model = model.controlnet_cond_embedding

    def forward(self, control_image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] float32, 0..1 -> [B, C, h, w]."""
        return self.model(control_image.to(self.model.conv_in.weight.dtype))

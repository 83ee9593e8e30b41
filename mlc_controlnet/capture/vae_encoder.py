"""The VAE's encoder: picture -> moments."""

import torch
from diffusers import AutoencoderKL
from torch import nn


class VaeEncoder(nn.Module):
    """Gives the posterior's mean and log-variance, unscaled; drawing a sample from them is the host's."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.quant_conv = model.quant_conv

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in -1..1 -> float32 [B, 2C, h, w]."""
        return self.quant_conv(self.encoder(image.to(self.quant_conv.weight.dtype))).float()

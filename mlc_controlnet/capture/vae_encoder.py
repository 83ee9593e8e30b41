"""The VAE's encoder: picture -> moments."""

import torch
from diffusers import AutoencoderKL
from torch import nn


class VaeEncoder(nn.Module):
    """Returns the posterior's mean and log-variance, unscaled. The host draws a sample from them."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.quant_conv = nn.Identity() if model.quant_conv is None else model.quant_conv

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in -1..1 -> float32 [B, 2C, h, w]."""
        dtype = self.encoder.conv_norm_out.weight.dtype
        return self.quant_conv(self.encoder(image.to(dtype))).float()

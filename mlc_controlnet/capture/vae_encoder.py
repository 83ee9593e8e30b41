"""The VAE's encoder: picture -> moments, or latents."""

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

from mlc_controlnet.capture.vae_decoder import stored_dtype


class VaeEncoder(nn.Module):
    """Returns the posterior's mean and log-variance, unscaled. The host draws a sample from them.

    A tiny autoencoder has no posterior: it returns the latents, unscaled.
    """

    def __init__(self, model: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.quant_conv = getattr(model, "quant_conv", None) or nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in -1..1 -> float32 [B, 2C, h, w], or [B, C, h, w] of a tiny autoencoder."""
        return self.quant_conv(self.encoder(image.to(stored_dtype(self.encoder)))).float()

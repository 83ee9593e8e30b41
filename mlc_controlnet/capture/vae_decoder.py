"""The VAE's decoder: latents -> picture."""

import torch
from diffusers import AutoencoderKL
from torch import nn


class VaeDecoder(nn.Module):
    """Decodes latents of unit variance, as the sampler has them: it divides them by the scaling factor first."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv = nn.Identity() if model.post_quant_conv is None else model.post_quant_conv
        self.decoder = model.decoder
        self.scaling_factor = float(model.config.scaling_factor)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 [B, C, h, w] -> float32 [B, 3, H, W], about -1..1, not clipped."""
        dtype = self.decoder.conv_norm_out.weight.dtype
        z = (latents / self.scaling_factor).to(dtype)
        return self.decoder(self.post_quant_conv(z)).float()

"""The VAE's decoder: latents -> picture."""

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn


class VaeDecoder(nn.Module):
    """Decodes latents of unit variance, as the sampler has them: it divides them by the scaling factor first."""

    def __init__(self, model: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.post_quant_conv = getattr(model, "post_quant_conv", None) or nn.Identity()
        self.decoder = model.decoder
        self.scaling_factor = float(model.config.scaling_factor)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 [B, C, h, w] -> float32 [B, 3, H, W], about -1..1, not clipped."""
        z = (latents / self.scaling_factor).to(stored_dtype(self.decoder))
        return self.decoder(self.post_quant_conv(z)).float()


def stored_dtype(half: nn.Module) -> torch.dtype:
    """Return the dtype that an encoder or a decoder computes in. A bias tells: references widen large weights late."""
    return next(parameter.dtype for parameter in half.parameters() if parameter.ndim == 1)

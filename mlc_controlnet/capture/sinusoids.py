"""Sinusoids of large angles, as the embeddings of numbers need them."""

import torch
from torch import nn

_TWO_PI_HIGH = 6.28125  # eight bits, so that its products with whole numbers up to 2^16 are exact in float32
_TWO_PI_LOW = 0.0019353071795864769


def sin_and_cos(angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 -> sines and cosines. GPUs compute those of large angles badly, so take the angles to -pi..pi first.

    Whole turns are taken away in two exact pieces of 2 pi.
    """
    turns = torch.round(angles * (1 / (_TWO_PI_HIGH + _TWO_PI_LOW)))
    angles = angles - turns * _TWO_PI_HIGH - turns * _TWO_PI_LOW
    return torch.sin(angles), torch.cos(angles)


class TimeIdsEmbedding(nn.Module):
    """Sinusoids of the time ids, by the rule of diffusers' `Timesteps` (Stable Diffusion XL, arXiv 2307.01952, 2.2).

    It has no weights. Sizes of pictures are angles of thousands, so a float16 component has float32 sinusoids too.
    """

    def __init__(self, width: int, cosines_first: bool, freq_shift: float) -> None:
        super().__init__()
        half = width // 2
        exponents = torch.arange(half, dtype=torch.float32) * -torch.log(torch.tensor(10000.0)) / (half - freq_shift)
        self.frequencies = [exponents.exp()]  # in a list, so that a change of the module's dtype leaves it alone
        self.cosines_first = cosines_first

    def forward(self, time_ids: torch.Tensor) -> torch.Tensor:
        """float32 [N] -> float32 [N, width]."""
        sines, cosines = sin_and_cos(time_ids.float()[:, None] * self.frequencies[0][None])
        return torch.cat([cosines, sines] if self.cosines_first else [sines, cosines], dim=1)

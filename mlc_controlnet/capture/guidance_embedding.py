"""The guidance embedding of latent consistency models: guidance scale -> what the timestep's embedding is added to."""

import torch

_TWO_PI_HIGH = 6.28125  # eight bits, so that its products with whole numbers up to 2^16 are exact in float32
_TWO_PI_LOW = 0.0019353071795864769


class GuidanceEmbedding:
    """Sines and cosines of w = guidance scale - 1 (arXiv 2310.04378, section 4.3), by diffusers' rule.

    It has no weights. Its frequencies are float32 in a float16 component too: the largest angle is 1000 w.
    """

    def __init__(self, width: int) -> None:
        half = width // 2
        step = torch.log(torch.tensor(10000.0)) / (half - 1)
        self.frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
        self.is_odd = width % 2 == 1

    def __call__(self, guidance_scale: torch.Tensor) -> torch.Tensor:
        """float32 [1] -> float32 [1, width]."""
        w = (guidance_scale - 1) * 1000
        angles = w[:, None] * self.frequencies[None]
        # GPUs compute sines of large angles badly, so take the angle to -pi..pi first, in two exact pieces of 2 pi.
        turns = torch.round(angles * (1 / (_TWO_PI_HIGH + _TWO_PI_LOW)))
        angles = angles - turns * _TWO_PI_HIGH - turns * _TWO_PI_LOW
        pieces = [torch.sin(angles), torch.cos(angles)]
        if self.is_odd:
            pieces.append(torch.zeros_like(w)[:, None])
        return torch.cat(pieces, dim=1)

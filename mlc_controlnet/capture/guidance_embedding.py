"""The guidance embedding of latent consistency models: guidance scale -> what the timestep's embedding is added to."""

import torch

from mlc_controlnet.capture.sinusoids import sin_and_cos


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
        pieces = [*sin_and_cos(w[:, None] * self.frequencies[None])]
        if self.is_odd:
            pieces.append(torch.zeros_like(w)[:, None])
        return torch.cat(pieces, dim=1)

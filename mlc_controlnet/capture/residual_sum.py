"""The sum of two ControlNets' residuals: residuals, residuals -> residuals."""

import torch
from torch import nn


class ResidualSum(nn.Module):
    """Adds the residuals of two ControlNets, as diffusers' MultiControlNetModel does. It has no weights.

    A sum of N ControlNets takes N - 1 calls.
    """

    def forward(self, *residuals: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, C, h, w] each: the residuals of the one ControlNet, then those of the other."""
        count = len(residuals) // 2
        return tuple(one + other for one, other in zip(residuals[:count], residuals[count:], strict=True))

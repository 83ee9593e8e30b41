"""Linear groups: neighbouring inputs of an output share a scale, and a code counts steps of it from the middle.

Rounding to the largest number of a group, with step = max |w| / (2^(bits - 1) - 1), wastes codes on few large numbers.
Smaller steps clip these and round the others better. Of several steps, each group takes the one whose error is least,
after its scale was fitted to its codes by least squares: scale = sum(w q) / sum(q q).

Where it is known what a layer reads, the error of an input's weights counts as much as the square of the input:
scale = sum(x^2 w q) / sum(x^2 q q). Large inputs are what AWQ protects, too (arXiv 2306.00978), by scaling them.
"""

import torch

RATIOS = {8: (1.0, 0.95), 4: (1.1, 1.0, 0.9, 0.8, 0.7), 2: (2.0, 1.6, 1.3, 1.0, 0.8, 0.6)}


def choose_scales(
    weight: torch.Tensor, bits: int, group: int, least_squares: bool = True, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes uint8 [N, K] and scales float16 [N, K / group] of a float32 weight [N, K].

    Args:
        least_squares: False for plain rounding to the largest number of each group.
        importance: how much the error of an input's weights counts, above 0, float32 [1 or N, K]; None: all the same.
    """
    outputs, inputs = weight.shape
    grouped = weight.reshape(outputs * inputs // group, group)
    counts = torch.ones(()) if importance is None else importance.expand_as(weight).reshape(grouped.shape)
    middle = 2 ** (bits - 1)
    largest = grouped.abs().amax(1, keepdim=True) / (middle - 1)
    best = torch.full_like(largest, torch.inf)
    scales, codes = torch.zeros_like(largest), torch.zeros_like(grouped)
    for ratio in RATIOS[bits] if least_squares else (1.0,):
        scale = _as_stored(largest * ratio)
        rounded = _round(grouped, scale, middle)
        if least_squares:
            squares = (counts * rounded.square()).sum(1, keepdim=True)
            fitted = (counts * grouped * rounded).sum(1, keepdim=True) / squares
            scale = _as_stored(torch.where(squares > 0, fitted, scale))
            rounded = _round(grouped, scale, middle)
        error = (counts * (grouped - rounded * scale).square()).sum(1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        scales = torch.where(better, scale, scales)
        codes = torch.where(better, rounded, codes)
    table = scales.reshape(outputs, inputs // group).to(torch.float16)
    return (codes + middle).to(torch.uint8).reshape(outputs, inputs), table


def nearest_steps(bits: int, scale: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes, uint8, and decoded numbers, float32, of `values` with their float32 scales."""
    middle = 2 ** (bits - 1)
    rounded = _round(values, scale, middle)
    return (rounded + middle).to(torch.uint8), rounded * scale


def _as_stored(scale: torch.Tensor) -> torch.Tensor:
    return scale.to(torch.float16).float()


def _round(weight: torch.Tensor, scale: torch.Tensor, middle: int) -> torch.Tensor:
    safe = torch.where(scale == 0, 1.0, scale)
    return (weight / safe).round().clamp(-middle, middle - 1)

"""Round a weight so that its outputs change little: what one input's rounding does, the next inputs' makes good.

GPTQ (arXiv 2210.17323, algorithm 1), in blocks of inputs. With C = E[x x^T] and U the upper Cholesky factor of C^-1,
the inputs are rounded one after another, the largest first; the error e of input k changes the weights that are not
rounded yet by -e / U[k, k] times row k of U. Scales and palettes stay as they were chosen.
"""

from collections.abc import Callable, Iterable

import torch

LAZY = 128  # inputs whose errors change the rest of a block together

Nearest = Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # input, numbers [N] -> codes, decoded


def round_with_feedback(weight: torch.Tensor, hessians: Iterable[torch.Tensor], nearest: Nearest) -> torch.Tensor:
    """Return codes uint8 [N, K] of a float32 weight [N, K].

    Args:
        hessians: C of neighbouring inputs, float64 [B, B], positive definite; all B together are K.
        nearest: rounds the numbers of one input.
    """
    codes = torch.empty(weight.shape[::-1], dtype=torch.uint8)
    start = 0
    for hessian in hessians:
        order = hessian.diagonal().argsort(descending=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
        factor = torch.linalg.cholesky(inverse, upper=True).float()
        places = (start + order).tolist()
        left = weight[:, places].t().contiguous()  # [B, N]
        for first in range(0, len(places), LAZY):
            _round_inputs(left[first:], factor[first:, first:], places[first : first + LAZY], nearest, codes)
        start += len(places)
    return codes.t()


def _round_inputs(
    left: torch.Tensor, factor: torch.Tensor, places: list[int], nearest: Nearest, codes: torch.Tensor
) -> None:
    """Round the first inputs of `left` [inputs that are not rounded yet, N], and change the others."""
    count = len(places)
    errors = torch.empty(count, left.shape[1])
    for i, place in enumerate(places):
        codes[place], decoded = nearest(place, left[i])
        errors[i] = (left[i] - decoded) / factor[i, i]
        left[i + 1 : count] -= factor[i, i + 1 : count, None] * errors[i]
    left[count:] -= factor[:count, count:].t() @ errors

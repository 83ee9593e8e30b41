"""What a layer reads: the moments of its inputs, from which the rounding of its weight knows what an error costs.

A weight W [N, K] that is read as W' changes the outputs by (W' - W) x. Over all inputs x that is, in squares, the trace
of (W' - W) C (W' - W)^T with C = E[x x^T], the Hessian of GPTQ (arXiv 2210.17323). Where the bias takes the mean error,
C is the covariance instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

BLOCK = 512  # inputs whose products with each other are kept: K x K would be gigabytes for a large convolution
LEAST_ROWS = 64  # to know a layer's inputs: the time embedding's layers read one row a step, and will read others
DAMPING = 0.01  # of the mean square: GPTQ's (section 3.3), so that no input counts for nothing


@dataclass(frozen=True)
class InputMoments:
    """Of the rows, of K numbers each, that a layer multiplies by its weight.

    Attributes:
        rows: how many there were.
        mean: float64 [K]; of a convolution, K = C kh kw.
        mean_square: float64 [K].
        products: E[x x^T] of every BLOCK inputs with each other, of some of the rows: float32 [B, B] each.
        means: E[x] of the same rows, float32 [B] for each block.
        has_bias: whether the layer adds one.
    """

    rows: int
    mean: torch.Tensor
    mean_square: torch.Tensor
    products: tuple[torch.Tensor, ...]
    means: tuple[torch.Tensor, ...]
    has_bias: bool

    @property
    def are_enough(self) -> bool:
        """Whether errors may be made good for these rows: for others they grow."""
        return self.rows >= LEAST_ROWS

    @property
    def corrects_bias(self) -> bool:
        """Whether the mean error of the outputs can go into the bias."""
        return self.has_bias and self.are_enough

    @property
    def importance(self) -> torch.Tensor:
        """How much the error of each input's weights counts by itself: float32 [K], above 0."""
        square = self.mean_square - self.mean.square() if self.corrects_bias else self.mean_square
        average = square.mean()
        if not average > 0:
            return torch.ones(square.shape)
        return ((1 - DAMPING) * square.clamp_min(0) / average + DAMPING).float()

    def hessians(self) -> Iterator[torch.Tensor]:
        """Yield C of every BLOCK inputs, damped, float64 [B, B]."""
        for products, mean in zip(self.products, self.means, strict=True):
            block = products.double()
            if self.corrects_bias:
                block = block - torch.outer(mean.double(), mean.double())
            average = block.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
            yield block + DAMPING * average * torch.eye(len(block), dtype=torch.float64)

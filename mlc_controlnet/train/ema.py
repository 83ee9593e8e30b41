"""The exponential moving average of the trained weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class EMA:
    """The mean of `weights` over about 1 / (1 - decay) steps, in the weights' own dtype.

    Attributes:
        values: the averaged weights, in the order of `weights`.
    """

    def __init__(self, weights: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.weights, self.decay = list(weights), decay
        self.values = [w.detach().clone() for w in weights]

    def update(self, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        # The average must forget the start, so its horizon grows with the steps. diffusers' EMAModel has the same ramp,
        # but its first update has decay 0.
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [w.detach() for w in self.weights], 1 - decay)

    @torch.no_grad()
    def write_to_weights(self) -> None:
        """Give the model the averaged weights for good."""
        torch._foreach_copy_(self.weights, self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights until the block ends."""
        last = [w.detach().clone() for w in self.weights]
        self.write_to_weights()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, last)

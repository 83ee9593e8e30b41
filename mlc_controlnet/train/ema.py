"""An exponential moving average of the trained weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Average:
    """weights' mean over about 1 / (1 - decay) steps, in float32."""

    def __init__(self, weights: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.weights, self.decay = list(weights), decay
        self.values = [w.detach().clone() for w in weights]

    def update(self, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        # The average must not remember the start, so its horizon grows with the steps taken.
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [w.detach() for w in self.weights], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the average."""
        last = [w.detach().clone() for w in self.weights]
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, last)

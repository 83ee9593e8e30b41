"""Let weights that kernels of one shape read share their formats, so that a library has few kernels.

A kernel decodes one format. Where weights of a shape have three, a library has that kernel three times, and a browser
compiles it three times. So a shape that has more than one format pays for it: the error of the outputs, the bytes at
their price and the kernels at theirs are least together (Lagrange's relaxation, doi 10.1287/mnsc.27.1.1), with the
prices that bring the bytes to the budget and the kernels to their number.
"""

import itertools
from collections.abc import Hashable, Sequence

import numpy as np

from mlc_controlnet.quantize.allocation import Option

STEPS = 40  # of halving the logarithm of a price


def share_formats(
    weights: Sequence[Sequence[Option]], shapes: Sequence[Hashable], budget_bytes: int, more_kernels: int
) -> list[list[Option]]:
    """Return the options that each weight is left with; a choice of `budget_bytes` at most is among them.

    Args:
        weights: the options of each, of the same formats in the same order. Those of fewest bytes are within the
            budget.
        shapes: of each weight; equal ones share their formats.
        more_kernels: how many formats the shapes have together beyond one each, at most.
    """
    choice = _Choice(weights, shapes, more_kernels)
    dearest = choice.errors.max() + np.finfo(float).tiny  # a byte at this price is worth no error
    low, high = np.log(dearest) - 70, np.log(dearest)
    for _ in range(STEPS):
        middle = (low + high) / 2
        fits = choice.at(float(np.exp(middle)))[1] <= budget_bytes
        low, high = (low, middle) if fits else (middle, high)
    kept, _ = choice.at(float(np.exp(high)))
    return [[own[column] for column in columns] for own, columns in zip(weights, kept, strict=True)]


class _Choice:
    """The formats of each shape, by the price of a byte."""

    def __init__(self, weights: Sequence[Sequence[Option]], shapes: Sequence[Hashable], more_kernels: int) -> None:
        self.errors = np.array([[option.error for option in own] for own in weights])  # [weights, formats]
        self.sizes = np.array([[option.bytes for option in own] for own in weights])
        numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
        self.shape_of = np.array([numbers[shape] for shape in shapes])
        self.shapes, self.more_kernels = len(numbers), more_kernels
        formats = range(self.errors.shape[1])
        # Fewer formats first: of equal costs the first is taken.
        self.subsets = [own for count in formats for own in itertools.combinations(formats, count + 1)]
        self.counts = np.array([len(own) for own in self.subsets])

    def at(self, price: float) -> tuple[list[tuple[int, ...]], int]:
        """Return the columns of the formats that each weight is left with, and the bytes of the best of them."""
        costs = self.errors + price * self.sizes
        of_weights = np.stack([costs[:, own].min(1) for own in self.subsets], 1)
        of_shapes = np.zeros((self.shapes, len(self.subsets)))
        np.add.at(of_shapes, self.shape_of, of_weights)
        kept = [self.subsets[number] for number in self._within_kernels(of_shapes)[self.shape_of]]
        best = [own[int(costs[weight, own].argmin())] for weight, own in enumerate(kept)]
        return kept, int(self.sizes[np.arange(len(best)), best].sum())

    def _within_kernels(self, costs: np.ndarray) -> np.ndarray:
        """Return the number of each shape's subset, by their costs [shapes, subsets]."""

        def chosen(price: float) -> np.ndarray:
            return (costs + price * self.counts).argmin(1)

        def more(price: float) -> int:
            return int(self.counts[chosen(price)].sum()) - self.shapes

        if more(0.0) <= self.more_kernels:
            return chosen(0.0)
        high = np.log(costs.max())
        low = high - 70
        for _ in range(STEPS):
            middle = (low + high) / 2
            fits = more(float(np.exp(middle))) <= self.more_kernels
            low, high = (low, middle) if fits else (middle, high)
        return chosen(float(np.exp(high)))

"""Sums over a whole row on processors: several vectors at once, then one vector's lanes."""

import operator
from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

CHAINS = 4  # independent sums: as many as an addition has cycles


def across_lanes(vector: Any, lanes: int, combine: Callable[[Any, Any], Any] = operator.add) -> Any:
    """Combine the lanes of a vector to a number, by halves; `lanes` is a power of two."""
    while lanes > 1:
        lanes //= 2
        halves = [T.Shuffle([vector], [first + lane for lane in range(lanes)]) for first in (0, lanes)]
        vector = combine(*halves)
    return vector


def chains_of(steps: int) -> int:
    """Return how many independent sums share `steps` vectors evenly."""
    return next(chains for chains in (CHAINS, 2, 1) if steps % chains == 0)

"""Vectors of values in kernels that are written thread by thread; `lanes` of one is a plain number."""

from typing import Any

from tvm.script import tirx as T

LANES = 4  # what WGSL has, and what memory is read in


def lanes_of(row: int) -> int:
    """Values in a vector of a tensor whose rows in memory have this length."""
    return LANES if row % LANES == 0 else 1


def vector_of(dtype: str, lanes: int) -> str:
    """The dtype."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def spread(value: Any, lanes: int) -> Any:
    """A vector of equal values."""
    return value if lanes == 1 else T.Broadcast(value, lanes)


def neighbours(first: Any, lanes: int) -> Any:
    """The index of a vector that begins at `first`."""
    return first if lanes == 1 else T.ramp(first, 1, lanes)


def sum_of(vector: Any, lanes: int) -> Any:
    """A number."""
    if lanes == 1:
        return vector
    first, second, third, fourth = (T.Shuffle([vector], [lane]) for lane in range(LANES))
    return (first + second) + (third + fourth)

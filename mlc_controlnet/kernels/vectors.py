"""Vectors of values in kernels that are written thread by thread; `lanes` of one is a plain number."""

from typing import Any

from tvm.script import tirx as T

LANES = 4  # the numbers in WGSL's widest vector, and in one read of memory


def lanes_of(row: int) -> int:
    """Return the number of values in a vector of a tensor whose rows in memory have this length."""
    return LANES if row % LANES == 0 else 1


def vector_of(dtype: str, lanes: int) -> str:
    """Return the dtype of a vector."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def spread(value: Any, lanes: int) -> Any:
    """Return a vector of equal values."""
    return value if lanes == 1 else T.Broadcast(value, lanes)


def neighbours(first: Any, lanes: int) -> Any:
    """Return the index of the vector that begins at `first`."""
    return first if lanes == 1 else T.ramp(first, 1, lanes)


def numbers_of(vector: Any, lanes: int) -> list[Any]:
    """Return the numbers of a vector one by one; a vector of one lane is a number."""
    return [vector] if lanes == 1 else [T.Shuffle([vector], [lane]) for lane in range(lanes)]


def sum_of(vector: Any, lanes: int) -> Any:
    """Sum a vector to a number, neighbours first; `lanes` is a power of two."""
    numbers = numbers_of(vector, lanes)
    while len(numbers) > 1:
        numbers = [a + b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers[0]

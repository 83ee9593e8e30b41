"""Choose a format for each weight, so that their errors are small and their bytes are within a budget.

A weight's options, from fewest bytes to most, are a curve of error over bytes. Only those on its lower convex hull are
worth taking. From the fewest bytes on, the step that saves most error for its bytes is taken next (Fox, doi
10.1287/opre.14.2.210): of all choices with as few bytes none has a smaller error, until the first step that the budget
has no room for. After it, smaller steps that fit are taken still.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A format that a weight can have.

    Attributes:
        bytes: of codes and table.
        error: what it adds to an error that is a sum over weights.
    """

    format: str
    bytes: int
    error: float


def allocate(weights: Sequence[Sequence[Option]], budget_bytes: int) -> list[Option]:
    """Return an option for each weight, of `budget_bytes` together at most.

    Raises:
        ValueError: the options of fewest bytes are too many.
    """
    hulls = [lower_hull(options) for options in weights]
    chosen = [0] * len(hulls)
    left = budget_bytes - least_bytes(weights)
    if left < 0:
        raise ValueError(f"{-left} bytes too few")
    steps = [_step(hull, number, 0) for number, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, number = heapq.heappop(steps)
        hull, place = hulls[number], chosen[number]
        more = hull[place + 1].bytes - hull[place].bytes
        if more > left:
            continue  # and neither has the weight's next step
        left -= more
        chosen[number] = place + 1
        if place + 2 < len(hull):
            heapq.heappush(steps, _step(hull, number, place + 1))
    return [hull[place] for hull, place in zip(hulls, chosen, strict=True)]


def least_bytes(weights: Sequence[Sequence[Option]]) -> int:
    """Return the bytes of the smallest choice."""
    return sum(min(option.bytes for option in options) for options in weights)


def lower_hull(options: Sequence[Option]) -> list[Option]:
    """Return the options that more bytes and less error make worth taking, by bytes; each saves less a byte than the
    one before."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _saving(hull[-2], hull[-1]) <= _saving(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _step(hull: Sequence[Option], number: int, place: int) -> tuple[float, int]:
    """Return what a heap orders by, the greatest saving first, and whose step it is."""
    return -_saving(hull[place], hull[place + 1]), number


def _saving(smaller: Option, larger: Option) -> float:
    """Return the error that a byte saves."""
    return (smaller.error - larger.error) / (larger.bytes - smaller.bytes)

"""Finds the loops of a kernel in AMD's assembly, and how often each is executed.

The scalar register that counts a loop's trips begins with a constant, changes by constants and is compared with one, or
with what follows from the uniform buffer: it is run until the loop ends. What the compiler unrolled is no loop any
more, and what it unrolled in part has fewer trips, so that counts are those of the code that the chip executes. The
multiply-adds that follow are compared with those that the operation needs.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mlc_controlnet.bench.compilers.amd_isa import Block, Instruction
from mlc_controlnet.bench.compilers.amd_scalars import change, is_step, value_of, writes

MOST_TRIPS = 1 << 20
COMPARE = re.compile(r"s_cmpk?_(ge|gt|le|lt|eq|lg)_[iu]32$")
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "ge": int.__ge__,
    "gt": int.__gt__,
    "le": int.__le__,
    "lt": int.__lt__,
    "eq": int.__eq__,
    "lg": int.__ne__,
}


@dataclass(frozen=True)
class Loop:
    """A loop: indices of its first and last block, and its trips; None if its counter does not show them."""

    first: int
    last: int
    trips: float | None

    def holds(self, block: int) -> bool:
        """Whether it executes the block of this index."""
        return self.first <= block <= self.last

    def contains(self, other: "Loop") -> bool:
        """Whether the other loop, or the same, is within it."""
        return self.first <= other.first and other.last <= self.last


def find_loops(blocks: Sequence[Block], uniforms: Sequence[int] = ()) -> list[Loop]:
    """List the loops in program order, an outer one before those in it. uniforms: words of the uniform buffer."""
    place = {block.label: index for index, block in enumerate(blocks)}
    ends: dict[int, int] = {}
    for index, target in _branches(blocks, place):
        if target <= index:
            ends[target] = max(index, ends.get(target, 0))
    return [Loop(first, last, _trips(blocks, first, last, place, uniforms)) for first, last in sorted(ends.items())]


def trips_of(loops: Sequence[Loop], block: int) -> float:
    """Return how often a block is executed. A loop without a known count counts once."""
    return math.prod(1 if loop.trips is None else loop.trips for loop in loops if loop.holds(block))


def _branches(blocks: Sequence[Block], place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for index, block in enumerate(blocks):
        for instruction in block.instructions:
            if re.match(r"s_c?branch", instruction.opcode) and instruction.operands[-1] in place:
                yield index, place[instruction.operands[-1]]


def _trips(
    blocks: Sequence[Block], first: int, last: int, place: dict[str, int], uniforms: Sequence[int]
) -> int | None:
    """Return how often the body of a loop is executed, by the first of its exits whose counter is known."""
    before = [i for block in blocks[:first] for i in block.instructions]
    body = [i for block in blocks[first : last + 1] for i in block.instructions]
    begins = 0  # place in `body` of the block's first instruction
    for index in range(first, last + 1):
        instructions = blocks[index].instructions
        for number, compare in enumerate(instructions):
            if not COMPARE.match(compare.opcode):
                continue
            rest = instructions[number + 1 :]
            branch = next((i for i in rest if re.match(r"s_c(branch_scc|mp)", i.opcode)), None)
            if branch is None or branch.operands[-1] not in place:
                continue  # the next compare comes before any branch
            target = place[branch.operands[-1]]
            exits = not first <= target <= last
            if not exits and (index, target) != (last, first):
                continue  # a branch within the loop
            leaves_at = exits == branch.opcode.endswith("1")
            trips = _run_counter(before, body, begins + number, leaves_at, uniforms)
            if trips is not None:
                return trips
        begins += len(instructions)
    return None


def _run_counter(
    before: Sequence[Instruction], body: Sequence[Instruction], test: int, leaves_at: bool, uniforms: Sequence[int]
) -> int | None:
    """Run a counter until the compare at place `test` of `body` gives `leaves_at`; None if it is not constant."""
    kind = COMPARE.match(body[test].opcode)
    assert kind is not None
    register, bound = body[test].operands
    value, limit = value_of(register, before, uniforms), value_of(bound, before, uniforms)
    steps = [(place, i) for place, i in enumerate(body) if writes(i, register)]
    is_constant = not any(writes(i, bound) for i in body)
    loaded = next((i for i in reversed(body[:test]) if writes(i, bound)), None)
    if loaded is not None:  # a constant that is loaded in each trip
        limit = value_of(bound, [loaded], uniforms)
        is_constant = limit is not None
    is_constant = is_constant and all(is_step(i, register) for _, i in steps)
    if value is None or limit is None or not steps or not is_constant:
        return None
    for trips in range(1, MOST_TRIPS):
        for _, step in (one for one in steps if one[0] < test):
            value = change(value, step)
        if COMPARISONS[kind[1]](value, limit) == leaves_at:
            return trips - 1 if test < steps[0][0] else trips  # a test at the top leaves before the body
        for _, step in (one for one in steps if one[0] > test):
            value = change(value, step)
    return None

"""Finds the loops of a kernel in AMD's assembly, and how often each is executed.

Bounds are constants in our kernels, so the scalar register that counts a loop's trips begins with a constant, changes
by constants and is compared with one: it is run until the loop ends. What the compiler unrolled is no loop any more,
and what it unrolled in part has fewer trips, so that counts are those of the code that the chip executes. The
multiply-adds that follow are compared with those that the operation needs.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mlc_controlnet.bench.compilers.amd_isa import Block, Instruction

MOST_TRIPS = 1 << 20


@dataclass(frozen=True)
class Loop:
    """A loop: indices of its first and last block, and its trips; None if its counter does not show them."""

    first: int
    last: int
    trips: float | None

    def holds(self, block: int) -> bool:
        return self.first <= block <= self.last


def find_loops(blocks: Sequence[Block]) -> list[Loop]:
    """List the loops in program order, an outer one before those in it."""
    place = {block.label: index for index, block in enumerate(blocks)}
    ends: dict[int, int] = {}
    for index, target in _branches(blocks, place):
        if target <= index:
            ends[target] = max(index, ends.get(target, 0))
    return [Loop(first, last, _trips(blocks, first, last, place)) for first, last in sorted(ends.items())]


def _branches(blocks: Sequence[Block], place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for index, block in enumerate(blocks):
        for instruction in block.instructions:
            if re.match(r"s_c?branch", instruction.opcode) and instruction.operands[-1] in place:
                yield index, place[instruction.operands[-1]]


def trips_of(loops: Sequence[Loop], block: int) -> float:
    """Return how often a block is executed. A loop without a known count counts once."""
    return math.prod(1 if loop.trips is None else loop.trips for loop in loops if loop.holds(block))


STEP = re.compile(r"s_(add|addk|sub|lshl|lshr|ashr|mul)_[iub]32$")
CHANGES: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__,
    "addk": int.__add__,
    "sub": int.__sub__,
    "lshl": int.__lshift__,
    "lshr": int.__rshift__,
    "ashr": int.__rshift__,
    "mul": int.__mul__,
}
COMPARE = re.compile(r"s_cmpk?_(ge|gt|le|lt|eq|lg)_[iu]32$")
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "ge": int.__ge__,
    "gt": int.__gt__,
    "le": int.__le__,
    "lt": int.__lt__,
    "eq": int.__eq__,
    "lg": int.__ne__,
}


def _trips(blocks: Sequence[Block], first: int, last: int, place: dict[str, int]) -> int | None:
    """How often the body of a loop is executed, by the first of its exits whose counter is known."""
    body = [i for index in range(first, last + 1) for i in blocks[index].instructions]
    begins = 0  # place in `body` of the block's first instruction
    for index in range(first, last + 1):
        instructions = blocks[index].instructions
        for number, compare in enumerate(instructions):
            rest = instructions[number + 1 :]
            branch = next((i for i in rest if re.match(r"s_c(branch_scc|mp)", i.opcode)), None)
            if not COMPARE.match(compare.opcode) or branch is None or branch.operands[-1] not in place:
                continue  # no compare, or the next one comes before any branch
            target = place[branch.operands[-1]]
            exits = not first <= target <= last
            if not exits and (index, target) != (last, first):
                continue  # a branch within the loop
            leaves_at = exits == branch.opcode.endswith("1")
            trips = _run_counter(blocks[:first], body, begins + number, leaves_at)
            if trips is not None:
                return trips
        begins += len(instructions)
    return None


def _run_counter(before: Sequence[Block], body: Sequence[Instruction], test: int, leaves_at: bool) -> int | None:
    """Run a counter until the compare at place `test` of `body` gives `leaves_at`; None if it is not constant."""
    kind = COMPARE.match(body[test].opcode)
    assert kind is not None
    register, bound = body[test].operands
    value, limit = _constant_in(before, register), _constant_in(before, bound)
    writes = [(n, i) for n, i in enumerate(body) if _writes(i, register)]
    if value is None or limit is None or not writes or not all(_is_step(i, register) for _, i in writes):
        return None
    for trips in range(1, MOST_TRIPS):
        for _, step in (write for write in writes if write[0] < test):
            value = _change(value, step)
        if COMPARISONS[kind[1]](value, limit) == leaves_at:
            return trips - 1 if test < writes[0][0] else trips  # a test at the top leaves before the body
        for _, step in (write for write in writes if write[0] > test):
            value = _change(value, step)
    return None


def _writes(instruction: Instruction, register: str) -> bool:
    return instruction.operands[:1] == (register,) and not instruction.opcode.startswith("s_cmp")


def _is_step(instruction: Instruction, register: str) -> bool:
    """Whether it changes the register by a constant."""
    sources = instruction.operands[1:]
    return bool(STEP.match(instruction.opcode)) and all(o == register or _number(o) is not None for o in sources)


def _change(value: int, step: Instruction) -> int:
    kind = STEP.match(step.opcode)
    assert kind is not None
    left, right = (value if (number := _number(o)) is None else number for o in step.operands[-2:])
    return CHANGES[kind[1]](left, right)


def _constant_in(before: Sequence[Block], operand: str) -> int | None:
    """The constant that an operand holds behind the blocks `before`, as its last write in program order says."""
    if (number := _number(operand)) is not None:
        return number
    for block in reversed(before):
        for instruction in reversed(block.instructions):
            if _writes(instruction, operand):
                return _number(instruction.operands[1]) if re.match(r"s_movk?_[ib]32$", instruction.opcode) else None
    return None


def _number(text: str) -> int | None:
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", text) else None

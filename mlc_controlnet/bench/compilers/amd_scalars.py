"""Works out what scalar registers hold, from constants and from the words of the uniform buffer."""

import re
from collections.abc import Callable, Sequence

from mlc_controlnet.bench.compilers.amd_isa import Instruction

OPERATION = re.compile(r"s_(add|addk|sub|lshl|lshr|ashr|mul|and|or|min|max)_[iub]32$")
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__,
    "addk": int.__add__,
    "sub": int.__sub__,
    "lshl": int.__lshift__,
    "lshr": int.__rshift__,
    "ashr": int.__rshift__,
    "mul": int.__mul__,
    "and": int.__and__,
    "or": int.__or__,
    "min": min,
    "max": max,
}
UNIFORM_LOAD = re.compile(r"s_buffer_load_(?:b|dword)")


def number(text: str) -> int | None:
    """Return the value of a constant operand; None for a register."""
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", text) else None


def writes(instruction: Instruction, register: str) -> bool:
    """Whether it writes a register or a range that holds it, such as s[4:7]."""
    if not instruction.operands or instruction.opcode.startswith("s_cmp"):
        return False
    target = instruction.operands[0]
    if target == register:
        return True
    span, one = re.fullmatch(r"s\[(\d+):(\d+)\]", target), re.fullmatch(r"s(\d+)", register)
    return bool(span and one and int(span[1]) <= int(one[1]) <= int(span[2]))


def is_step(instruction: Instruction, register: str) -> bool:
    """Whether it changes the register by a constant."""
    sources = instruction.operands[1:]
    return bool(OPERATION.match(instruction.opcode)) and all(o == register or number(o) is not None for o in sources)


def change(value: int, step: Instruction) -> int:
    """Return the register's value behind such a step."""
    left, right = (value if (known := number(o)) is None else known for o in step.operands[-2:])
    return _operate(step, value if len(step.operands) == 2 else left, right)


def value_of(operand: str, before: Sequence[Instruction], uniforms: Sequence[int]) -> int | None:
    """Return what an operand holds behind the instructions `before`, in program order; None if it is not constant.

    uniforms: the words of the only uniform buffer.
    """
    if (known := number(operand)) is not None:
        return known
    for place in range(len(before) - 1, -1, -1):
        instruction = before[place]
        if not writes(instruction, operand):
            continue
        if instruction.opcode in ("s_bfm_b64", "s_mov_b64"):
            return _word(instruction, operand)
        if UNIFORM_LOAD.match(instruction.opcode):
            return _uniform(instruction, operand, uniforms)
        if re.match(r"s_movk?_[ib]32$", instruction.opcode):
            return value_of(instruction.operands[1], before[:place], uniforms)
        if not OPERATION.match(instruction.opcode):
            return None
        sources = instruction.operands[-2:]  # of s_addk: its target, and the constant
        left, right = (value_of(source, before[:place], uniforms) for source in sources)
        return None if left is None or right is None else _operate(instruction, left, right)
    return None


def _operate(instruction: Instruction, left: int, right: int) -> int:
    kind = OPERATION.match(instruction.opcode)
    assert kind is not None
    return OPERATIONS[kind[1]](left, right)


def _place(instruction: Instruction, register: str) -> int:
    """Return which word of the range that it writes the register is."""
    first, wanted = re.findall(r"\d+", instruction.operands[0])[0], re.findall(r"\d+", register)[0]
    return int(wanted) - int(first)


def _word(instruction: Instruction, register: str) -> int | None:
    """Return a half of a constant of 64 bits: s_bfm_b64 s[0:1], 32, 0 makes 32 ones."""
    numbers = [number(operand) for operand in instruction.operands[1:]]
    if None in numbers:
        return None
    first, *shift = numbers
    assert first is not None
    value = ((1 << first) - 1) << (shift[0] or 0) if shift else first
    return value >> 32 * _place(instruction, register) & 0xFFFFFFFF


def _uniform(load: Instruction, register: str, uniforms: Sequence[int]) -> int | None:
    offset = 0 if load.operands[2] == "null" else number(load.operands[2])
    if offset is None:
        return None
    word = offset // 4 + _place(load, register)
    return uniforms[word] if word < len(uniforms) else None

"""Reads the assembly (SASS) of NVIDIA's compiler, and says what each instruction costs a warp.

Rates are those of the table of arithmetic instructions in NVIDIA's CUDA C++ Programming Guide, a quarter of a
multiprocessor's each. `vector` are the cycles of the units for floating-point numbers and products, `issue` those of
the scheduler, one for every instruction.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mlc_controlnet.bench.compilers.amd_isa import Block, Cost, Instruction
from mlc_controlnet.bench.compilers.amd_loops import MOST_TRIPS, Loop

WARP = 32
BYTES_A_CYCLE = 128  # of a multiprocessor's shared memory, and of its first cache
# Cycles of a warp: single precision, packed half precision.
CYCLES = {"sm_80": (2.0, 1.0), "sm_89": (1.0, 2.0), "sm_90": (1.0, 1.0)}
SINGLE, HALF = ("FFMA", "FMUL", "FADD"), ("HFMA2", "HMUL2", "HADD2")
PRODUCTS = {"FFMA": 1, "FMUL": 1, "HFMA2": 2, "HMUL2": 2}
OTHER_VECTOR = ("IMAD", "F2FP", "F2F", "I2F", "F2I")  # half the rate
CONTROL = ("BRA", "EXIT", "BSSY", "BSYNC", "NOP", "CALL", "RET", "BAR", "WARPSYNC", "S2R", "S2UR", "CS2R")
COMPARE = re.compile(r"U?ISETP\.(GE|GT|LE|LT|EQ|NE)\b")
COMPARISONS = {
    "GE": int.__ge__,
    "GT": int.__gt__,
    "LE": int.__le__,
    "LT": int.__lt__,
    "EQ": int.__eq__,
    "NE": int.__ne__,
}


def parse(assembly: str) -> dict[str, list[Block]]:
    """Split a listing of `nvdisasm -c` into kernels and their blocks; a block ends behind a branch."""
    kernels: dict[str, list[Block]] = {}
    blocks: list[Block] = []
    label, instructions = "", []  # type: str, list[Instruction]

    def close(next_label: str) -> None:
        nonlocal label, instructions
        if instructions:
            blocks.append(Block(label, tuple(instructions)))
        label, instructions = next_label, []

    for line in assembly.splitlines():
        if section := re.match(r"\.text\.(\w+):", line):
            close("")
            blocks = kernels.setdefault(section[1], [])
        elif found := re.match(r"(\.L_x_\d+):", line):
            close(found[1])
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?(.*?)\s*;", line):
            opcode, _, operands = found[1].partition(" ")
            operands = operands.partition("(*")[0]  # a remark: what is spilled
            instructions.append(Instruction(opcode, tuple(o.strip() for o in operands.split(",") if o.strip())))
            if opcode.startswith("BRA"):
                close("")
    close("")
    return kernels


def find_loops(blocks: Sequence[Block]) -> list[Loop]:
    """List the loops in program order, with the trips of each.

    A loop ends when the last compare of its own counter with a constant changes for the first time.
    """
    place = {block.label: index for index, block in enumerate(blocks) if block.label}
    ends: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for instruction in block.instructions:
            target = re.search(r"\.L_x_\d+", " ".join(instruction.operands))
            if instruction.opcode.startswith("BRA") and target and place.get(target[0], index + 1) <= index:
                first = place[target[0]]
                if first < index or len(block.instructions) > 1:  # not the endless loop behind the end
                    ends[first] = max(index, ends.get(first, 0))
    spans = sorted(ends.items())
    return [Loop(first, last, _trips(blocks, first, last, spans)) for first, last in spans]


def _trips(blocks: Sequence[Block], first: int, last: int, spans: Sequence[tuple[int, int]]) -> int | None:
    inner = [(a, b) for a, b in spans if (a, b) != (first, last) and first <= a and b <= last]
    own = [
        i
        for index in range(first, last + 1)
        if not any(a <= index <= b for a, b in inner)
        for i in blocks[index].instructions
    ]
    before = [i for block in blocks[:first] for i in block.instructions]
    for place in range(len(own) - 1, -1, -1):
        if (kind := COMPARE.match(own[place].opcode)) and (trips := _run(before, own, place, kind[1])) is not None:
            return trips
    return None


def _run(before: Sequence[Instruction], own: Sequence[Instruction], test: int, kind: str) -> int | None:
    """Run the loop's integers until the compare at place `test` of `own` changes; None if they are not constant."""
    sides = [side.removesuffix(".reuse") for side in own[test].operands[2:4]]
    values: dict[str, int | None] = {}
    for instruction in before:
        _evaluate(instruction, values)
    deciding = _deciding(own, sides)
    initially, written = None, {target for _, i in deciding for target in _targets(i)}
    for trips in range(1, MOST_TRIPS):
        result, entered = None, [values.get(target) for target in written]
        for place, instruction in deciding:
            if place > test and result is None:
                result = _compare(kind, sides, values)
            _evaluate(instruction, values)
        result = _compare(kind, sides, values) if result is None else result
        initially = result if initially is None else initially
        if result != initially:
            return trips if result is not None else None
        if result is None or entered == [values.get(target) for target in written]:  # unknown, or it never changes
            return None
    return None


def _compare(kind: str, sides: Sequence[str], values: Mapping[str, int | None]) -> bool | None:
    left, right = (_read(side, values) for side in sides)
    return None if left is None or right is None else COMPARISONS[kind](left, right)


def _deciding(own: Sequence[Instruction], sides: Sequence[str]) -> list[tuple[int, Instruction]]:
    """The instructions on which the compared numbers depend, with their places."""
    wanted = set(sides)
    found: dict[int, Instruction] = {}
    while True:
        new = {p: i for p, i in enumerate(own) if p not in found and wanted & set(_targets(i))}
        if not new:
            return sorted(found.items())
        found |= new
        operands = {operand.removesuffix(".reuse") for i in new.values() for operand in i.operands}
        wanted |= {operand for operand in operands if re.match(r"U?R\d|\[", operand)}


def _targets(instruction: Instruction) -> tuple[str, ...]:
    """What an instruction writes: registers, or a number of the stack, as in [R1+0x8]."""
    target = instruction.operands[0] if instruction.operands else ""
    if instruction.opcode == "CS2R":  # a pair
        return target, re.sub(r"\d+", lambda found: str(int(found[0]) + 1), target)
    return (target,)


def _evaluate(instruction: Instruction, values: dict[str, int | None]) -> None:
    """Write into `values` what an instruction writes: None where it is not known before the kernel runs."""
    _, *sources = instruction.operands or ("",)
    read = [_read(source, values) for source in sources]
    result: int | None = None
    if re.match(r"U?MOV$|IMAD\.MOV|U?IMAD\.U32|CS2R", instruction.opcode):
        result = read[-1]
    elif re.fullmatch(r"(LDL|STL)(\.LU)?", instruction.opcode):  # a counter that is spilled
        result = read[0]
    elif instruction.opcode.startswith("HFMA2") and sources[:2] == ["-RZ", "RZ"]:  # a constant as two halves
        high, low = (int(np.float16(float(source)).view(np.uint16)) for source in sources[2:4])
        result = high << 16 | low
    elif instruction.opcode in ("IADD3", "UIADD3", "VIADD"):
        known = [number for number in read if number is not None]
        result = sum(known) if len(known) == len(read) else None
    values |= dict.fromkeys(_targets(instruction), result)


def _read(text: str, values: Mapping[str, int | None]) -> int | None:
    """The number that an operand stands for."""
    place = text.removesuffix(".reuse")
    return 0 if place in ("RZ", "URZ", "SRZ") else values.get(place, _number(place))


def _number(text: str) -> int | None:
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", text) else None


def cost_of(instruction: Instruction, architecture: str) -> Cost:
    """Return the cost of one instruction for one warp. architecture: a key of CYCLES."""
    name, *suffixes = instruction.opcode.split(".")
    if name in ("LDS", "STS"):
        moved = _bytes(suffixes) * WARP
        cycles = max(1.0, moved / BYTES_A_CYCLE)
        return Cost(scalar_cycles=1, workgroup_loads=float(name == "LDS"), workgroup_cycles=cycles)
    if name in ("LDG", "STG", "LDL", "STL", "LD", "ST"):
        moved = _bytes(suffixes) * WARP
        return Cost(scalar_cycles=1, memory=1, memory_cycles=max(1.0, moved / BYTES_A_CYCLE), memory_bytes=moved)
    if name == "BAR":
        return Cost(scalar_cycles=1, barriers=1)
    if name in CONTROL or name.startswith("U"):
        return Cost(scalar_cycles=1)
    single, half = CYCLES[architecture]
    vector = single if name in SINGLE else half if name in HALF else 2.0 if name in OTHER_VECTOR else 0.0
    factors = [o.lstrip("-|").split(".")[0].rstrip("|") for o in instruction.operands[1:3]]
    is_product = all(re.fullmatch(r"R\d+", factor) for factor in factors)
    adds = PRODUCTS.get(name, 0) if is_product else 0
    slow = 8.0 if name == "MUFU" else 0.0
    return Cost(vector=1, multiply_adds=adds, vector_cycles=vector, transcendental_cycles=slow, scalar_cycles=1)


def _bytes(suffixes: Sequence[str]) -> int:
    bits: Iterator[int] = (int(s) for s in suffixes if s in ("64", "128"))
    narrow = {"U8": 1, "S8": 1, "U16": 2, "S16": 2}
    return next(bits, 0) // 8 or next((narrow[s] for s in suffixes if s in narrow), 4)

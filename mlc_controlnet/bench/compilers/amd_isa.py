"""Reads the assembly that AMD's compiler writes, and says what each instruction costs.

Cycles are those of Mesa's own model, src/amd/compiler/aco_statistics.cpp (Mesa 25): a SIMD has 32 lanes, so a vector
instruction of a wave of 64 is issued twice, unless RDNA 3 issues both halves at once. There v_fmac_f32 does as many
multiply-adds a cycle as v_pk_fma_f16: 64.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

LANES = 32
WORKGROUP_MEMORY_BYTES_A_CYCLE = 128  # of a compute unit: 32 banks of 4 bytes
CACHE_BYTES_A_CYCLE = 64  # of a compute unit's first cache

# Multiply-adds a lane.
TWO = r"v_pk_fmac?_f16|v_pk_mul_f16|v_dot2\w*"
ONE = r"v_(fma_mix(lo|hi)?_f(16|32)|fma(c|mk|ak)?_f(16|32)|ma[dc]_f(16|32)|mul_f(16|32))"
# What RDNA 3 issues for a wave of 64 in one cycle: is_dual_issue_capable of the model.
DUAL = re.compile(
    r"v_((fma|fmac|fmaak|fmamk|mul|add|sub|subrev|max|min)_f(16|32)|mov_b(16|32)|cndmask_b(16|32)|dot2\w*_f16"
    r"|(max|min|add|sub)_[iu]16|mad_[iu]16|mul_lo_u16|(not|and|or|xor)_b16|(lshr|ashr|lshl)rev_[bi]16)$"
)
MATRIX = "v_wmma_"
MATRIX_MULTIPLY_ADDS, MATRIX_CYCLES = 16 * 16 * 16, 32  # of a wave, of 32 threads or 64
TRANSCENDENTAL = re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_")
QUARTER_RATE = re.compile(r"v_(mul_lo|mul_hi)_[iu]32|v_mad_[iu]64_[iu]32")
NO_WORK = ("s_waitcnt", "s_delay_alu", "s_nop", "s_clause", "s_endpgm", "s_sendmsg", "s_code_end", "s_inst_prefetch")
BYTES = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "short": 2, "ushort": 2, "ubyte": 1, "b16": 2, "b32": 4, "b64": 8}
BYTES |= {"b96": 12, "b128": 16, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16, "byte": 1}


@dataclass(frozen=True)
class Instruction:
    """One instruction: `v_fma_f32`, ["v1", "v2", "v3", "v1"]. The encoding's suffix is left out."""

    opcode: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Instructions without a branch, except at the end."""

    label: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Cost:
    """What one wave executes.

    Attributes:
        vector, multiply_adds: vector instructions, and multiply-adds of a lane. A product that begins a sum counts.
        vector_cycles, transcendental_cycles, scalar_cycles: issue cycles of a SIMD.
        workgroup_loads, workgroup_cycles: loads of workgroup memory; cycles of a compute unit's workgroup memory,
            loads and stores, without bank conflicts.
        memory, memory_cycles, memory_bytes: instructions of memory, cycles of a compute unit's first cache, and the
            bytes that all lanes ask for.
        barriers: waits for the other waves of the workgroup.
    """

    vector: float = 0
    multiply_adds: float = 0
    vector_cycles: float = 0
    transcendental_cycles: float = 0
    scalar_cycles: float = 0
    workgroup_loads: float = 0
    workgroup_cycles: float = 0
    memory: float = 0
    memory_cycles: float = 0
    memory_bytes: float = 0
    barriers: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(getattr(self, f.name) * times for f in fields(Cost)))


def parse(assembly: str) -> list[Block]:
    """Split a listing into blocks."""
    blocks: list[tuple[str, list[Instruction]]] = []
    for line in assembly.splitlines():
        if label := re.match(r"(BB\d+):", line):
            blocks.append((label[1], []))
        elif blocks and (text := line.partition(";")[0].strip()):
            for part in text.split("::"):
                opcode, _, operands = part.strip().partition(" ")
                opcode = re.sub(r"_(e32|e64|dpp|sdwa)$", "", opcode)
                blocks[-1][1].append(Instruction(opcode, tuple(o.strip() for o in operands.split(",") if o.strip())))
    return [Block(label, tuple(instructions)) for label, instructions in blocks]


def cost_of(instruction: Instruction, wave: int, dual_issue: bool) -> Cost:
    """Return the cost of one instruction for one wave. dual_issue: the chip is RDNA 3."""
    opcode = instruction.opcode
    passes = wave // LANES
    if opcode.startswith(MATRIX):
        return Cost(vector=1, multiply_adds=MATRIX_MULTIPLY_ADDS / wave, vector_cycles=MATRIX_CYCLES)
    if opcode.startswith("v_"):
        single = opcode.replace("v_dual_", "v_")
        halves = 1.0 if dual_issue and DUAL.match(single) else float(passes)
        if opcode.startswith("v_dual_"):
            halves = 0.5 * passes  # two of them in one
        adds = _multiply_adds(single, instruction.operands)
        slow = 4 * passes if TRANSCENDENTAL.match(opcode) else 0
        cycles = halves * (4 if QUARTER_RATE.match(opcode) else 1)
        return Cost(vector=1, multiply_adds=adds, vector_cycles=cycles, transcendental_cycles=slow)
    if opcode == "s_barrier":
        return Cost(barriers=1)
    if opcode.startswith("s_"):
        return Cost(scalar_cycles=0 if opcode.startswith(NO_WORK) else 1)
    if opcode.startswith("ds_"):
        moved = _bytes(opcode) * wave
        of_memory = max(passes, moved / WORKGROUP_MEMORY_BYTES_A_CYCLE)
        return Cost(workgroup_loads=float("load" in opcode or "read" in opcode), workgroup_cycles=of_memory)
    if re.match(r"buffer_|global_|scratch_|flat_", opcode):
        moved = _bytes(opcode) * wave
        return Cost(memory=1, memory_cycles=max(2.0 * passes, moved / CACHE_BYTES_A_CYCLE), memory_bytes=moved)
    return Cost()


def _multiply_adds(opcode: str, operands: Sequence[str]) -> int:
    """Multiply-adds of a lane. One by the constant 1.0 converts or adds; a product by a constant scales."""
    per_lane = 2 if re.fullmatch(TWO, opcode) else 1 if re.fullmatch(ONE, opcode) else 0
    factors = [o.split()[0] for o in operands[1:3]]
    if "1.0" in factors or ("_mul_" in opcode and not all(f.lstrip("-|").startswith("v") for f in factors)):
        return 0
    return per_lane


def _bytes(opcode: str) -> int:
    """Bytes of a lane: ds_load_2addr_b64 and buffer_load_d16_hi_b16 name them."""
    words = opcode.split("_")
    size = next((BYTES[word] for word in reversed(words) if word in BYTES), 4)
    return size * (2 if any(word in ("2addr", "2st64", "read2", "write2") for word in words) else 1)

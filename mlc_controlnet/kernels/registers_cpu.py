"""The vector registers of a processor, as a target describes them.

| instruction set | registers | float32 numbers in each |
| --- | ---: | ---: |
| AVX-512 | 32 | 16 |
| AVX2 | 16 | 8 |
| Neon | 32 | 4 |
| wasm simd128 | 16 on the machines that matter | 4 |
"""

from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.quantize.scheme import LANES

LEAST_BITS = 128  # SSE, Neon and wasm


@dataclass(frozen=True)
class Registers:
    """A processor's vector registers.

    Attributes:
        count: how many there are.
        lanes: float32 numbers in one.
    """

    count: int
    lanes: int

    @property
    def accumulators(self) -> int:
        """How many hold a micro-tile's sums. The rest are for operands."""
        return self.count * 3 // 4

    def filled_by(self, numbers: int) -> int:
        """Count the registers that a row of `numbers` fills."""
        return ceil_div(numbers, self.lanes)

    def fullness(self, numbers: int) -> float:
        """Return the part of the lanes that a row of `numbers` uses, of the registers that it fills."""
        return numbers / (self.filled_by(numbers) * self.lanes)


def registers_of(target: Target | None = None) -> Registers:
    """Return the registers of `target`; of the current one by default."""
    target = Target.current(allow_none=False) if target is None else target
    bits = int(target.attrs.get("vector-width", LEAST_BITS))
    many = bits >= 512 or str(target.attrs.get("mtriple", "")).startswith(("aarch64", "arm64"))
    return Registers(32 if many else 16, bits // 32)


def in_words(schedule: Schedule, loop: Any) -> None:
    """Turn a loop that decodes a packed weight into vectors of one word: wider ones would gather their words."""
    if int(schedule.get(loop).extent) % LANES == 0:
        _, lane = schedule.split(loop, [None, LANES])
        schedule.vectorize(lane)


def in_vectors(schedule: Schedule, loop: Any, registers: Registers) -> None:
    """Turn a loop into vectors of one register, unrolled: LLVM splits wider ones only at powers of two."""
    extent = int(schedule.get(loop).extent)
    if extent > registers.lanes and extent % registers.lanes == 0:
        outer, loop = schedule.split(loop, [None, registers.lanes])
        schedule.unroll(outer)
    schedule.vectorize(loop)

"""A kernel as a chip's compiler left it: registers, occupancy, blocks with what they cost, and loops."""

from dataclasses import dataclass

from mlc_controlnet.bench.compilers.amd_isa import Block, Cost
from mlc_controlnet.bench.compilers.amd_loops import Loop


@dataclass(frozen=True)
class Code:
    """A compiled kernel.

    Attributes:
        wave: threads of a wave, which NVIDIA calls a warp.
        registers, spilled: registers of a thread, and how many of its values are kept in memory instead.
        workgroup_bytes: workgroup memory.
        occupancy: waves that a SIMD holds at once.
        blocks, loops: its code.
        costs: what a wave executes in each block, all trips together. A block behind a condition counts as if every
            wave took it.
    """

    wave: int
    registers: int
    spilled: int
    workgroup_bytes: int
    occupancy: int
    blocks: tuple[Block, ...]
    loops: tuple[Loop, ...]
    costs: tuple[Cost, ...]

    @property
    def whole(self) -> Cost:
        """What a wave executes."""
        return sum(self.costs, Cost())

    def hot_loop(self) -> Cost:
        """Return the innermost loop with the most multiply-adds; the whole code where there is no loop."""
        return self._most([a for a in self.loops if not any(b != a and a.contains(b) for b in self.loops)])

    def step(self) -> Cost:
        """Return the outermost loop with the most multiply-adds: steps of k with their loads, or tiles of keys."""
        return self._most([a for a in self.loops if not any(b != a and b.contains(a) for b in self.loops)])

    def _most(self, loops: list[Loop]) -> Cost:
        costs = [sum(self.costs[loop.first : loop.last + 1], Cost()) for loop in loops]
        return max(costs, key=lambda cost: cost.multiply_adds, default=self.whole)

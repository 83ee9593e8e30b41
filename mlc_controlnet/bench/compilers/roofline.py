"""Predicts the time of a launch from what its compiled code executes: a roofline, never a measurement.

    time = the longest of
        vector             issue cycles of vector instructions of the busiest SIMD
        transcendental     cycles of its unit for exponentials and roots
        scalar             issue cycles of scalar instructions of the busiest SIMD; on NVIDIA's chips `issue`: of all
        workgroup memory   cycles of the busiest compute unit's workgroup memory
        cache              cycles of its first cache
        memory             bytes that every schedule must move, each once, at the memory's published rate

The busiest compute unit has ceil(workgroups / units) workgroups. Where that is much more than the mean, or where less
than two waves a SIMD are there, the bound is called `too few workgroups`. Left out: misses of caches, latency, which
occupancy hides or does not, conflicts of banks, waits at barriers, dependencies between instructions, clocks below
boost, and the launch itself.
"""

import math
from dataclasses import dataclass

from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.chips import NVIDIA, Chip

FEW = "too few workgroups"
FULL = 0.75  # of the busiest compute unit's work that the mean must have


@dataclass(frozen=True)
class Prediction:
    """The time of one launch in microseconds, by resource, and what bounds it."""

    microseconds: dict[str, float]
    bound: str

    @property
    def total(self) -> float:
        """Return the time in microseconds."""
        return max(self.microseconds.values())


def predict(cost: Cost, workgroups: int, waves: int, least_bytes: float, chip: Chip) -> Prediction:
    """Predict one launch.

    Args:
        cost: what one wave executes.
        waves: waves of a workgroup.
        least_bytes: bytes of all operands and results.
    """
    on_busiest = math.ceil(workgroups / chip.units) * waves  # waves of the busiest unit
    on_simd = math.ceil(on_busiest / chip.simds)
    megahertz = 1000 * chip.gigahertz
    times = {
        "vector": on_simd * cost.vector_cycles / megahertz,
        "transcendental": on_simd * cost.transcendental_cycles / megahertz,
        "issue" if chip.maker == NVIDIA else "scalar": on_simd * cost.scalar_cycles / megahertz,
        "workgroup memory": on_busiest * cost.workgroup_cycles / megahertz,
        "cache": on_busiest * cost.memory_cycles / megahertz,
        "memory": least_bytes / (1000 * chip.gigabytes_per_second),
    }
    bound = max(times, key=lambda name: times[name])
    is_uneven = workgroups / chip.units < FULL * math.ceil(workgroups / chip.units)
    few_waves = workgroups * waves < 2 * chip.units * chip.simds
    return Prediction(times, FEW if bound != "memory" and (is_uneven or few_waves) else bound)


def limit_microseconds(multiply_adds: float, least_bytes: float, dtype: str, chip: Chip) -> float:
    """The shortest time of any schedule: its multiply-adds or its bytes at the chip's published rates."""
    arithmetic = 2 * multiply_adds / (1e6 * chip.teraflops[dtype])
    return max(arithmetic, least_bytes / (1000 * chip.gigabytes_per_second))

"""The limits that every GPU grants a kernel, how its workgroups fill GPUs, and the memory that its threads work in."""

import math
from collections.abc import Sequence
from typing import Any

from tvm.script import tirx as T

from mlc_controlnet.kernels.integers import ceil_div

WORKGROUP_BYTES = 16 * 1024  # the least workgroup memory that any WebGPU device has
# A GPU with fewer workgroups than this to run leaves most of its cores idle: then smaller tiles are better.
ENOUGH_WORKGROUPS = 128

# Compute units, SIMDs of each, and threads of a wave: a Radeon Pro W6800, a W7900 and a GeForce RTX 4090.
GPUS = ((60, 2, 64), (96, 2, 64), (128, 4, 32))
WORTH_ANOTHER_TILE, MOST_LOST = 0.98, 1.05  # of a tile's time: the mean's over GPUS, and any GPU's


def busiest_simd(workgroups: int, threads: int) -> list[float]:
    """Return how many waves the busiest SIMD of each of GPUS runs. threads: of a workgroup; half a wave is half one."""
    return [
        ceil_div(ceil_div(workgroups, units) * ceil_div(threads, wave), simds) * min(1.0, threads / wave)
        for units, simds, wave in GPUS
    ]


def mean_share(times: Sequence[float], of: Sequence[float]) -> float:
    """Return the geometric mean over GPUS of some times over others; infinite if one of them is more than MOST_LOST."""
    ratios = [time / other for time, other in zip(times, of, strict=True)]
    return math.prod(ratios) ** (1 / len(ratios)) if max(ratios) <= MOST_LOST else math.inf


def in_workgroup(*shape: int, dtype: str = "float32") -> Any:
    """Allocate memory that the threads of a workgroup share."""
    return T.sblock_alloc_buffer(shape, dtype, scope="shared")


def in_registers(count: int, dtype: str = "float32") -> Any:
    """Allocate so many values for each thread."""
    return T.sblock_alloc_buffer((count,), dtype, scope="local")

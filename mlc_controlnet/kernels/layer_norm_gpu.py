# mypy: disable-error-code="no-untyped-def, valid-type"
"""Layer norm over the last axis for GPUs: 32 threads a row, four rows a workgroup; few or wide rows have 128 threads.

A row is read once and stays in registers: 3 vectors a thread for 320 channels, 5 for 640. Neighbouring threads read
neighbouring vectors of four. dlight's rule reads the row three times, from memory or cache, and a sum takes it seven
barriers. Here it takes two: FOLD threads add what the others left in workgroup memory, then everybody adds FOLD
numbers. Mean first, then deviations from it: exact where the mean is large.
"""

import math
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.finished import mark_finished
from mlc_controlnet.kernels.vectors import lanes_of, neighbours, spread, sum_of, vector_of

THREADS = 128
NARROW = 32  # threads of a row where there are rows enough
FOLD = 8
ENOUGH_WORKGROUPS = 128
MOST_VALUES = 20  # registers a thread


@dataclass(frozen=True)
class LayerNorm:
    """shape: [.., rows, width]; the norm is over the width."""

    shape: tuple[int, ...]
    epsilon: float
    dtype: str

    @property
    def width(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def threads_a_row(self) -> int:
        enough = self.rows * NARROW >= ENOUGH_WORKGROUPS * THREADS
        return NARROW if enough and self.width <= NARROW * MOST_VALUES else THREADS

    @property
    def lanes(self) -> int:
        """Values in a vector."""
        return lanes_of(self.width)

    def is_supported(self) -> bool:
        return self.dtype in ("float16", "float32") and self.width <= THREADS * MOST_VALUES

    def place(self, row: Any, column: Any) -> tuple[Any, ...]:
        """Indices into a tensor of `shape`."""
        indices: list[Any] = [neighbours(column, self.lanes)]
        for size in reversed(self.shape[1:-1]):
            indices.append(row % size)
            row = row // size
        return tuple(reversed([*indices, row]))


@T.macro
def add_over_row(total, thread, row, threads, gathered, folded):
    """total[0] of all threads of a row -> their sum, in every thread's total[0]."""
    gathered[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    if thread < FOLD:
        total[0] = T.float32(0)
        for n in T.serial(threads // FOLD):
            total[0] = total[0] + gathered[row, n * FOLD + thread]
        folded[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    total[0] = T.float32(0)
    for n in T.serial(FOLD):
        total[0] = total[0] + folded[row, n]


def layer_norm(norm: LayerNorm) -> tirx.PrimFunc:
    """(x, gamma, beta, y): y = (x - mean) / sqrt(variance + epsilon) * gamma + beta; x and y [.., width]."""
    threads = norm.threads_a_row
    rows = THREADS // threads
    lanes, vector = norm.lanes, vector_of("float32", norm.lanes)
    step = threads * lanes  # values of a row at a time
    rounds = -(-norm.width // step)

    @T.prim_func(s_tir=True, private=True)
    def layer_norm(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.width,), norm.dtype),
        beta: T.Buffer((norm.width,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for bx in T.thread_binding(-(-norm.rows // rows), thread="blockIdx.x"):
            for ty in T.thread_binding(rows, thread="threadIdx.y"):
                for tx in T.thread_binding(threads, thread="threadIdx.x"):
                    with T.sblock("layer_norm"):
                        T.reads()
                        T.writes()
                        gathered = T.sblock_alloc_buffer((rows, threads), "float32", scope="shared")
                        folded = T.sblock_alloc_buffer((rows, FOLD), "float32", scope="shared")
                        held = T.sblock_alloc_buffer((rounds,), vector, scope="local")
                        total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                        mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                        row: T.let[T.int32] = T.min(bx * rows + ty, norm.rows - 1)
                        first: T.let[T.int32] = tx * lanes

                        total[0] = T.float32(0)
                        for n in T.unroll(rounds):
                            if n * step + first < norm.width:
                                held[n] = T.cast(x[norm.place(row, n * step + first)], vector)
                                total[0] = total[0] + sum_of(held[n], lanes)
                        add_over_row(total, tx, ty, threads, gathered, folded)
                        mean[0] = total[0] / T.float32(norm.width)

                        total[0] = T.float32(0)
                        for n in T.unroll(rounds):
                            if n * step + first < norm.width:
                                held[n] = held[n] - spread(mean[0], lanes)
                                total[0] = total[0] + sum_of(held[n] * held[n], lanes)
                        add_over_row(total, tx, ty, threads, gathered, folded)
                        total[0] = T.rsqrt(total[0] / T.float32(norm.width) + T.float32(norm.epsilon))

                        for n in T.unroll(rounds):
                            if n * step + first < norm.width and bx * rows + ty < norm.rows:
                                y[norm.place(row, n * step + first)] = T.cast(
                                    held[n]
                                    * spread(total[0], lanes)
                                    * T.cast(gamma[neighbours(n * step + first, lanes)], vector)
                                    + T.cast(beta[neighbours(n * step + first, lanes)], vector),
                                    vector_of(norm.dtype, lanes),
                                )

    return mark_finished(layer_norm)

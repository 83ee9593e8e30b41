# mypy: disable-error-code="no-untyped-def, valid-type"
"""Layer norm over the last axis for GPUs: 32 threads per row, four rows per workgroup; few or wide rows get 128.

A row is read once and stays in registers: 3 vectors per thread for 320 channels, 5 for 640. Neighbouring threads read
neighbouring vectors of four. dlight's rule reads the row three times, from memory or cache, and needs seven barriers
for a sum. Here a sum needs two, see `combine_over_row`. The kernel computes the mean first and then the deviations from
it, which is exact if the mean is large.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.kernels.row_reduction import add, combine_over_row
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import lanes_of, neighbours, spread, sum_of, vector_of
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS, in_registers, in_workgroup

VERSION = 1  # of what the decisions mean
THREADS = 128
FOLD = 8  # see `combine_over_row`
NARROW = 32  # threads of a row if there are enough rows
MOST_VALUES = 20  # registers per thread


def is_supported(norm: LayerNorm) -> bool:
    """Return whether a row fits into a workgroup's registers."""
    return norm.width <= THREADS * MOST_VALUES


@dataclass(frozen=True)
class Tile:
    """Threads of a row, and rows of a workgroup."""

    threads: int
    rows: int


def default_tile(norm: LayerNorm) -> Tile:
    """Return the tile of the rules."""
    threads = threads_a_row(norm)
    return Tile(threads, THREADS // threads)


def tiles(norm: LayerNorm) -> list[Tile]:
    """List the search space: all whose rows fit into registers, in workgroups of half and of twice the threads, too."""
    return [
        Tile(threads, of_workgroup // threads)
        for threads in (16, NARROW, 64, THREADS, 2 * THREADS)
        for of_workgroup in (THREADS // 2, THREADS, 2 * THREADS)
        if threads <= of_workgroup and norm.width <= threads * MOST_VALUES
    ]


def tunable_layer_norm(function: tirx.PrimFunc, _target: Target) -> Tunable | None:
    """Return what there is to decide about a kernel of this module; None if the function is none."""
    norm = asked_for(function)
    if not isinstance(norm, LayerNorm):
        return None

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, build(norm, Tile(**decisions)))

    return Tunable(
        Operation("layer_norm_gpu", VERSION, norm.axes, (), params_of(function)),
        asdict(default_tile(norm)),
        lambda: [asdict(tile) for tile in tiles(norm)],
        schedule,
        math.prod(norm.axes),
    )


def threads_a_row(norm: LayerNorm) -> int:
    """Return how many threads of a workgroup share one row."""
    enough = norm.rows * NARROW >= ENOUGH_WORKGROUPS * THREADS
    return NARROW if enough and norm.width <= NARROW * MOST_VALUES else THREADS


def _place(norm: LayerNorm, row: Any, column: Any, lanes: int) -> tuple[Any, ...]:
    """Return the indices into a tensor of `norm.shape`."""
    indices: list[Any] = [neighbours(column, lanes)]
    for size in reversed(norm.shape[1:-1]):
        indices.append(row % size)
        row = row // size
    return tuple(reversed([*indices, row]))


def build(norm: LayerNorm, tile: Tile | None = None) -> tirx.PrimFunc:
    """See `layer_norm` for its parameters. tile: None is the rules'."""
    tile = default_tile(norm) if tile is None else tile
    threads, rows = tile.threads, tile.rows
    lanes = lanes_of(norm.width)
    vector = vector_of("float32", lanes)
    step = threads * lanes  # values of a row at a time
    rounds = ceil_div(norm.width, step)

    @T.prim_func(s_tir=True, private=True)
    def layer_norm(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.width,), norm.dtype),
        beta: T.Buffer((norm.width,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for bx in T.thread_binding(ceil_div(norm.rows, rows), thread="blockIdx.x"):
            for ty in T.thread_binding(rows, thread="threadIdx.y"):
                for tx in T.thread_binding(threads, thread="threadIdx.x"):
                    with T.sblock("layer_norm"):
                        T.reads()
                        T.writes()
                        gathered = in_workgroup(rows, threads)
                        folded = in_workgroup(rows, FOLD)
                        held = in_registers(rounds, vector)
                        total = in_registers(1)
                        mean = in_registers(1)
                        row: T.let[T.int32] = T.min(bx * rows + ty, norm.rows - 1)
                        first: T.let[T.int32] = tx * lanes

                        total[0] = T.float32(0)
                        for n in T.unroll(rounds):
                            if n * step + first < norm.width:
                                held[n] = T.cast(x[_place(norm, row, n * step + first, lanes)], vector)
                                total[0] = total[0] + sum_of(held[n], lanes)
                        combine_over_row(total, tx, ty, threads, FOLD, gathered, folded, add, 0.0)
                        mean[0] = total[0] / T.float32(norm.width)

                        total[0] = T.float32(0)
                        for n in T.unroll(rounds):
                            if n * step + first < norm.width:
                                held[n] = held[n] - spread(mean[0], lanes)
                                total[0] = total[0] + sum_of(held[n] * held[n], lanes)
                        combine_over_row(total, tx, ty, threads, FOLD, gathered, folded, add, 0.0)
                        total[0] = T.rsqrt(total[0] / T.float32(norm.width) + T.float32(norm.epsilon))

                        for n in T.unroll(rounds):
                            if n * step + first < norm.width and bx * rows + ty < norm.rows:
                                y[_place(norm, row, n * step + first, lanes)] = T.cast(
                                    held[n]
                                    * spread(total[0], lanes)
                                    * T.cast(gamma[neighbours(n * step + first, lanes)], vector)
                                    + T.cast(beta[neighbours(n * step + first, lanes)], vector),
                                    vector_of(norm.dtype, lanes),
                                )

    return layer_norm

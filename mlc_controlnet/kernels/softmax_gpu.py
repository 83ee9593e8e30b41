# mypy: disable-error-code="no-untyped-def, valid-type"
"""Softmax over the last axis for GPUs: one workgroup per row, which is read once and stays in registers.

A row may be written over the row that was read, so the plan needs one plane of scores less.
"""

from functools import reduce
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST
from mlc_controlnet.kernels.exponential import LOG2_E
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.marks import mark_finished, mark_overwritable
from mlc_controlnet.kernels.row_reduction import add, combine_over_row
from mlc_controlnet.kernels.vectors import lanes_of, neighbours, numbers_of, spread, sum_of, vector_of
from mlc_controlnet.kernels.workgroups import in_registers, in_workgroup

THREADS = 128
FOLD = 8  # see `combine_over_row`
MOST_VALUES = 64  # registers per thread


def is_supported(width: int) -> bool:
    """Return whether a row fits into a workgroup's registers."""
    return width <= THREADS * MOST_VALUES


def softmax(shape: tuple[int, int, int], scale: float) -> tirx.PrimFunc:
    """Return a scheduled PrimFunc (x, y): y = softmax(scale * x) over the last axis, float32 of `shape`; scale > 0."""
    batch, rows, width = shape
    lanes = lanes_of(width)
    vector = vector_of("float32", lanes)
    step = THREADS * lanes  # values of a row at a time
    rounds = ceil_div(width, step)

    def greatest(values: Any) -> Any:
        return reduce(tirx.max, numbers_of(values, lanes))

    @T.prim_func(s_tir=True, private=True)
    def softmax(x: T.Buffer(shape, "float32"), y: T.Buffer(shape, "float32")):
        for bx in T.thread_binding(batch * rows, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("softmax"):
                    T.reads()
                    T.writes()
                    gathered = in_workgroup(1, THREADS)
                    folded = in_workgroup(1, FOLD)
                    held = in_registers(rounds, vector)
                    total = in_registers(1)
                    row_max = in_registers(1)
                    b: T.let[T.int32] = bx // rows
                    row: T.let[T.int32] = bx % rows
                    first: T.let[T.int32] = tx * lanes

                    total[0] = T.float32(LOWEST)
                    for n in T.unroll(rounds):
                        if n * step + first < width:
                            held[n] = x[b, row, neighbours(n * step + first, lanes)] * spread(
                                T.float32(scale * LOG2_E), lanes
                            )
                            total[0] = T.max(total[0], greatest(held[n]))
                    combine_over_row(total, tx, 0, THREADS, FOLD, gathered, folded, tirx.max, LOWEST)
                    row_max[0] = total[0]

                    total[0] = T.float32(0)
                    for n in T.unroll(rounds):
                        if n * step + first < width:
                            held[n] = T.exp2(held[n] - spread(row_max[0], lanes))
                            total[0] = total[0] + sum_of(held[n], lanes)
                    combine_over_row(total, tx, 0, THREADS, FOLD, gathered, folded, add, 0.0)

                    for n in T.unroll(rounds):
                        if n * step + first < width:
                            y[b, row, neighbours(n * step + first, lanes)] = held[n] / spread(total[0], lanes)

    return mark_overwritable(mark_finished(softmax, f"Softmax(shape={shape}, scale={scale})"), [0])

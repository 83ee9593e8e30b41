# mypy: disable-error-code="no-untyped-def, valid-type"
"""Softmax over the last axis for GPUs: a workgroup a row, which is read once and stays in registers.

A row may be written over what was read. The scores of 4096 tokens are 64 MiB in float32: a plane less in the plan.
"""

from functools import reduce
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOG2_E, LOWEST
from mlc_controlnet.kernels.finished import mark_finished
from mlc_controlnet.kernels.row_reduction import FOLD, add, combine_over_row
from mlc_controlnet.kernels.vectors import lanes_of, neighbours, numbers_of, spread, sum_of, vector_of

THREADS = 128
MOST_VALUES = 64  # registers a thread


def is_supported(width: int) -> bool:
    """Whether a row fits into a workgroup's registers."""
    return width <= THREADS * MOST_VALUES


def softmax(shape: tuple[int, int, int], scale: float) -> tirx.PrimFunc:
    """The scheduled PrimFunc (x, y): y = softmax(scale * x) over the last axis, float32 of `shape`; scale > 0."""
    batch, rows, width = shape
    lanes = lanes_of(width)
    vector = vector_of("float32", lanes)
    step = THREADS * lanes  # values of a row at a time
    rounds = -(-width // step)

    def greatest(values: Any) -> Any:
        return reduce(tirx.max, numbers_of(values, lanes))

    @T.prim_func(s_tir=True, private=True)
    def softmax(x: T.Buffer(shape, "float32"), y: T.Buffer(shape, "float32")):
        for bx in T.thread_binding(batch * rows, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("softmax"):
                    T.reads()
                    T.writes()
                    gathered = T.sblock_alloc_buffer((1, THREADS), "float32", scope="shared")
                    folded = T.sblock_alloc_buffer((1, FOLD), "float32", scope="shared")
                    held = T.sblock_alloc_buffer((rounds,), vector, scope="local")
                    total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    lowest = T.sblock_alloc_buffer((1,), "float32", scope="local")
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
                    combine_over_row(total, tx, 0, THREADS, gathered, folded, tirx.max, LOWEST)
                    lowest[0] = total[0]

                    total[0] = T.float32(0)
                    for n in T.unroll(rounds):
                        if n * step + first < width:
                            held[n] = T.exp2(held[n] - spread(lowest[0], lanes))
                            total[0] = total[0] + sum_of(held[n], lanes)
                    combine_over_row(total, tx, 0, THREADS, gathered, folded, add, 0.0)

                    for n in T.unroll(rounds):
                        if n * step + first < width:
                            y[b, row, neighbours(n * step + first, lanes)] = held[n] / spread(total[0], lanes)

    return mark_finished(softmax).with_attr("overwritable", [0])

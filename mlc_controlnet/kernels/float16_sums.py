"""Sums of products of float16 numbers, in float16 over short runs, each run added to a float32 sum.

    run = sum over k of run of (left[k] / SCALE) * right[k]        # float16, fma
    sum = sum over runs of SCALE * run                             # float32

GPUs compute two float16 multiply-adds at a time (AMD: v_pk_fma_f16, NVIDIA: HFMA2), and a mixed one (v_fma_mix_f32)
adds a run, with its factor, to a float32 sum: 9/16 of an instruction a multiply-add for runs of 16, against 1.

Precision, of normal numbers and any depth from 320 to 11,520, against exact sums:

    run         1       4      8      16     32     64     all in float16
    dB       73.6      68     66      64     61     58     52 to 36

Overflow: a run of 16 cannot while max|left| max|right| <= 65504 SCALE / 16 = 16,376, as activations of 8,000 and
weights of 2; beyond that only where the runs of a sum cancel, because the result itself has to fit float16. A greater
factor would lose small operands to the subnormals of float16: with activations of 0.03 and weights of 0.0006 a factor
of 4 costs 11 dB (49 remain of 60), one of 32 costs 30. Powers of two are exact for all other numbers.
"""

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import Schedule

from mlc_controlnet.kernels.integers import divisors

Block = Any  # a block or loop handle of a Schedule

LONGEST_RUN = 16
SHORTEST_RUN = 4  # in shorter ones the addition to float32 costs what the packed products save
SCALE = 4.0


def run_length(dtype: str, depth: int) -> int | None:
    """Return how many products of operands of `dtype` to sum in float16: a divisor of `depth`; None: all in float32."""
    longest = divisors(depth, LONGEST_RUN)[-1]
    return longest if dtype == "float16" and longest >= SHORTEST_RUN else None


def sum_in_runs(schedule: Schedule, product: Block, run: int) -> tuple[Schedule, str, str]:
    """Divide a sum of products of float16 numbers into runs along its last axis.

    Before: sum[m, n] += float32(left[m, k]) * float32(right[k, n])
    After:  scaled[m, k] = left[m, k] / SCALE
            runs[k0, m, n] += scaled[m, k0 run + k1] * right[k0 run + k1, n]    # float16
            sum[m, n] += SCALE * float32(runs[k0, m, n])

    Returns a new schedule, in which handles of the old one mean nothing, and the names of the blocks of `runs` and of
    `sum`. The block of `scaled` is a producer of runs, to be inlined.
    """
    left = schedule.cache_read(product, 0, "global", [product])
    outer, _ = schedule.split(schedule.get_loops(product)[-1], [None, run])
    partial = schedule.rfactor(outer, 0)
    scaled, sums = (schedule.get(block).writes[0].source for block in (left, partial))
    halves = tirx.decl_buffer(sums.shape, "float16", sums.name, scope=sums.scope())

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        if node.buffer.same_as(scaled):
            return tirx.BufferStore(scaled, node.value * tirx.const(1 / SCALE, "float16"), node.indices)
        if not node.buffer.same_as(sums):
            return node
        if not isinstance(node.value, tirx.Add):
            return tirx.BufferStore(halves, tirx.const(0, "float16"), node.indices)
        factors = node.value.b  # float32(left) * float32(right)
        added = tirx.BufferLoad(halves, node.indices) + factors.a.value * factors.b.value
        return tirx.BufferStore(halves, added, node.indices)

    def load(node: TensorLoad) -> tirx.Expr:
        if not node.source.same_as(sums):
            return node
        return tirx.Cast("float32", tirx.BufferLoad(halves, node.indices)) * tirx.const(SCALE, "float32")

    def rename(variable: tvm.ir.Var) -> tvm.ir.Var:
        return halves if variable.same_as(sums) else variable

    function = schedule.mod["main"]
    replacements: list[tuple[type, Callable[[Any], Any]]] = [
        (tirx.BufferStore, store),
        (TensorLoad, load),
        (tvm.ir.Var, rename),
    ]
    for kind, replace in replacements:
        function = tvm_ffi.structural_map(function, (kind, replace))
    names = (schedule.get(partial).name_hint, schedule.get(product).name_hint)
    return Schedule(tvm.IRModule({"main": function})), *names

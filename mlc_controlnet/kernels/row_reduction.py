# mypy: disable-error-code="no-untyped-def, valid-type"
"""Combine the values of a row's threads and give each thread the result, with two barriers; a tree needs seven.

WebGPU's subgroups would need one barrier or none, and are left out: every kernel that reduces waits for memory. On the
Radeon Pro W7900, layer norm of [4096, 320] takes 6.07 us for its bytes as predicted, beside 0.86 us of vector
instructions and 0.49 us of workgroup memory; with subgroupShuffleXor 0.75 and 0. Statistics of [320, 64, 64] take
3.04 us for their bytes, and 1.32 and 0.87 beside; with subgroupAdd 0.55 and 0.13. All norms are 2.3 % of a step, and
those that memory does not bound are 0.04 % of it. docs/performance.md has the table.
"""

from typing import Any

from tvm.script import tirx as T


def add(a: Any, b: Any) -> Any:
    """Return a + b: the reduction that adds."""
    return a + b


@T.macro
def combine_over_row(total, thread, row, threads, fold, gathered, folded, combine, start):
    """Combine total[0] of all threads of a row with `combine`, from `start` on, into every thread's total[0].

    `fold` threads combine what the others left in workgroup memory, then each thread combines `fold` numbers: best near
    the root of `threads`, of which it is a divisor. `gathered` [rows, threads] and `folded` [rows, fold] are float32 in
    workgroup memory.
    """
    gathered[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    if thread < fold:
        total[0] = T.float32(start)
        for n in T.serial(threads // fold):
            total[0] = combine(total[0], gathered[row, n * fold + thread])
        folded[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    total[0] = T.float32(start)
    for n in T.serial(fold):
        total[0] = combine(total[0], folded[row, n])

# mypy: disable-error-code="no-untyped-def, valid-type"
"""Combine the values of a row's threads and give each thread the result, with two barriers; a tree needs seven."""

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

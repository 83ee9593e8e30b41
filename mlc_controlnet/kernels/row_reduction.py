# mypy: disable-error-code="no-untyped-def, valid-type"
"""What the threads of a row have, combined, for each of them: two barriers, where a tree takes seven."""

from typing import Any

from tvm.script import tirx as T

FOLD = 8  # threads that combine what the others left in workgroup memory; then everybody combines so many numbers


def add(a: Any, b: Any) -> Any:
    """Return the sum, as the operator of a reduction."""
    return a + b


@T.macro
def combine_over_row(total, thread, row, threads, gathered, folded, combine, start):
    """total[0] of all threads of a row -> what `combine` makes of them from `start` on, in every thread's total[0].

    `gathered` [rows, threads] and `folded` [rows, FOLD]: float32 in workgroup memory; `threads` a multiple of FOLD.
    """
    gathered[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    if thread < FOLD:
        total[0] = T.float32(start)
        for n in T.serial(threads // FOLD):
            total[0] = combine(total[0], gathered[row, n * FOLD + thread])
        folded[row, thread] = total[0]
    T.tvm_storage_sync("shared")
    total[0] = T.float32(start)
    for n in T.serial(FOLD):
        total[0] = combine(total[0], folded[row, n])

"""A schedule for matrix products on processors, with whatever elementwise work was fused into them.

Weights come as [N, K], so the numbers that a vector wants, one k of neighbouring columns, lie K apart. A panel of
columns is packed once as [K, columns] and serves every row; a micro-tile of rows by the panel stays in registers.
With too few rows to repay the packing, the vector runs along k and its lanes are added at the end.
"""

from tvm import tirx
from tvm.s_tir import Schedule

from mlc_controlnet.kernels.anchored_cpu import ACCUMULATORS, VECTOR, Anchored, anchor, extents, largest_divisor

ROWS_THAT_REPAY_PACKING = 4


def schedule_matmul(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """The scheduled function; None if it is no product of [..., M, K] by [N, K] or [K, N]."""
    schedule = Schedule(function)
    found = next((form for kinds in ("SSR", "SSSR") if (form := anchor(schedule, kinds)) is not None), None)
    if found is None or found.pads or len(schedule.get(found.reduction).reads) != 2:
        return None
    *_, rows, _ = extents(schedule, schedule.get_loops(found.epilogue))
    if rows < ROWS_THAT_REPAY_PACKING:
        _along_k(schedule, found)
    else:
        _packed(schedule, found)
    return schedule.mod["main"]


def _packed(schedule: Schedule, found: Anchored) -> None:
    *batch, m, n = schedule.get_loops(found.epilogue)
    *_, rows, columns = extents(schedule, schedule.get_loops(found.epilogue))
    tile_columns = largest_divisor(columns, VECTOR)
    tile_rows = largest_divisor(rows, max(1, ACCUMULATORS // -(-tile_columns // 8)))

    n, tile_n = schedule.split(n, [None, tile_columns])
    m, tile_m = schedule.split(m, [None, tile_rows])
    schedule.reorder(*batch, n, m, tile_m, tile_n)
    panel = schedule.fuse(*batch, n)
    schedule.parallel(panel)
    schedule.vectorize(tile_n)

    weights = schedule.cache_read(found.reduction, 1, "global")
    schedule.compute_at(found.reduction, m, preserve_unit_loops=True)
    *_, row, column, k = schedule.get_loops(found.reduction)
    schedule.reorder(k, row, column)
    schedule.unroll(row)
    schedule.vectorize(column)
    start = schedule.decompose_reduction(found.reduction, k)
    *_, row, column = schedule.get_loops(start)
    schedule.unroll(row)
    schedule.vectorize(column)

    schedule.compute_at(weights, panel, preserve_unit_loops=True)
    schedule.transform_layout(weights, ("write", 0), lambda *index: (*index[:-2], index[-1], index[-2]))


def _along_k(schedule: Schedule, found: Anchored) -> None:
    *_, k = schedule.get_loops(found.reduction)
    (depth,) = extents(schedule, [k])
    _, lane = schedule.split(k, [None, largest_divisor(depth, VECTOR)])
    partial = schedule.rfactor(lane, 0)
    schedule.set_scope(partial, 0, "local")

    outer = schedule.fuse(*schedule.get_loops(found.epilogue))
    schedule.compute_at(found.reduction, outer, preserve_unit_loops=True)
    schedule.compute_at(partial, outer, preserve_unit_loops=True)
    _, lanes, *_, step = schedule.get_loops(partial)
    schedule.reorder(step, lanes)
    schedule.vectorize(lanes)
    start = schedule.decompose_reduction(partial, step)
    schedule.vectorize(schedule.get_loops(start)[1])

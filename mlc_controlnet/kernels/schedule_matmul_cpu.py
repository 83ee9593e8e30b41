"""A schedule for matrix products on processors, with whatever elementwise work was fused into them.

A panel of columns is packed as [tiles, K, columns] and serves every row of a task. It is one micro-tile wide, or up to
64 columns where a micro-tile is narrow. The panels of one block of rows follow each other, so that these rows stay in
the second-level cache: a product takes 0.89 to 1.00 of the time that it takes where all rows of a panel follow each
other. A micro-tile of rows by the panel stays in registers. Weights that lie as [K, N] are copied in vectors; with [N,
K] the numbers that a vector wants, one k of neighbouring columns, lie K apart. With too few rows to repay the packing,
weights are [N, K], the vector runs along k and its lanes are added at the end; threads share the columns, because one
core reads less than the memory delivers.
"""

import math
from dataclasses import asdict, dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, Block, anchor, extents, inline_weights, try_inline
from mlc_controlnet.kernels.decoding import is_decoding
from mlc_controlnet.kernels.integers import divisors, round_up
from mlc_controlnet.kernels.registers_cpu import Registers, in_vectors, in_words, registers_of
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, apply_in_place, params_of

VERSION = 1  # of what the decisions mean
ROWS_THAT_REPAY_PACKING = 4
ROWS_OF_A_TASK = 256  # so many repay packing a panel once more
MOST_ROWS_OF_A_TASK = 512  # more would leave the second-level cache before the next panel wants them
LINE, PANEL = 32, 64  # columns: float16 numbers of a line of the cache; of a panel of several micro-tiles at most
TASKS = 32  # at least, where rows allow it: for ten tasks, eight cores need the time of two
PADDING = 0.85  # of a tile's worth where rows are padded: the left operand is copied
WORTH_A_THREAD = 1 << 16  # weights of few rows; with fewer, waking a thread costs more than the work


@dataclass(frozen=True)
class MatmulTile:
    """The part that stays in registers."""

    rows: int
    columns: int


def default_tile(function: tirx.PrimFunc, registers: Registers) -> MatmulTile:
    """Return the tile with the most multiply-adds per load that fits into the registers with its operands."""
    rows, columns = _output_shape(function)

    def multiply_adds_per_load(tile: MatmulTile) -> float:
        loads = tile.rows + registers.filled_by(tile.columns)
        used = registers.fullness(tile.columns) * rows / round_up(rows, tile.rows)
        return used * tile.rows * tile.columns / loads * (PADDING if rows % tile.rows else 1)

    return max(
        (
            MatmulTile(tile_rows, tile_columns)
            for tile_columns in divisors(columns, 3 * registers.lanes)
            for tile_rows in _rows_of_tiles(rows, registers.accumulators)
            if tile_rows * registers.filled_by(tile_columns) <= registers.accumulators
        ),
        key=multiply_adds_per_load,
    )


def _rows_of_tiles(rows: int, most: int) -> list[int]:
    """List divisors of `rows`, and for few rows what leaves at most an eighth of the last tile's idle."""
    return [
        size
        for size in range(1, min(rows, most) + 1)
        if rows % size == 0 or (rows < ROWS_OF_A_TASK and round_up(rows, size) * 7 <= rows * 8)
    ]


def tiles(function: tirx.PrimFunc, registers: Registers) -> list[MatmulTile]:
    """List the search space: every tile that the registers hold and that has work for at least a quarter of them."""
    rows, columns = _output_shape(function)
    if rows < ROWS_THAT_REPAY_PACKING:
        return []
    return [
        MatmulTile(tile_rows, tile_columns)
        for tile_rows in _rows_of_tiles(rows, registers.count - 2)
        for tile_columns in divisors(columns, 4 * registers.lanes)
        if registers.count // 4 <= tile_rows * registers.filled_by(tile_columns) <= registers.count - 2
    ]


def tunable_matmul(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a product; None if the function is none, or has too few rows for tiles."""
    schedule = Schedule(function)
    found = _find(schedule, function)
    if found is None or _output_shape(function)[0] < ROWS_THAT_REPAY_PACKING:
        return None
    registers = registers_of(target)
    axes = extents(schedule, schedule.get_loops(found.reduction))
    layout = "weights [N, K]" if _k_is_last(schedule, found) else "weights [K, N]"

    def apply(decisions: Decisions) -> tirx.PrimFunc:
        tile = MatmulTile(**decisions)
        return apply_in_place(function, lambda schedule: schedule_matmul(schedule, registers, tile))

    return Tunable(
        Operation("matmul_cpu", VERSION, tuple(axes), (layout,), params_of(function)),
        asdict(default_tile(function, registers)),
        lambda: [asdict(tile) for tile in tiles(function, registers)],
        apply,
        math.prod(axes),
    )


def schedule_matmul(schedule: Schedule, registers: Registers, tile: MatmulTile | None = None) -> bool:
    """Schedule in place. If the function is no product of two matrices, return False; the schedule is unusable then."""
    function = schedule.mod["main"]
    found = _find(schedule, function)
    if found is None:
        return False
    if _output_shape(function)[0] < ROWS_THAT_REPAY_PACKING:
        _along_k(schedule, found, registers)
    else:
        _packed(schedule, found, default_tile(function, registers) if tile is None else tile, registers)
    return True


def _find(schedule: Schedule, function: tirx.PrimFunc) -> Anchored | None:
    rank = len(function.params[-1].ty.shape)
    found = anchor(schedule, "S" * rank + "R") if rank in (2, 3) else None
    if found is None or found.pads or len(schedule.get(found.reduction).reads) != 2:
        return None
    return found


def _k_is_last(schedule: Schedule, found: Anchored) -> bool:
    product = schedule.get(found.reduction)
    return bool(product.reads[1].region[-1].min.same_as(product.iter_vars[-1].var))


def _packed(schedule: Schedule, found: Anchored, tile: MatmulTile, registers: Registers) -> None:
    k_is_last = _k_is_last(schedule, found)
    weights = _copy_weights(schedule, found, tile)
    *batch, m, n = schedule.get_loops(found.epilogue)
    rows, columns = extents(schedule, [m, n])
    n, tile_of_panel, tile_n = schedule.split(n, [None, _tiles_of_panel(rows, columns, tile), tile.columns])
    (panels,) = extents(schedule, [n])
    m, tile_m = schedule.split(m, [None, tile.rows])
    (steps,) = extents(schedule, [m])
    block, m = schedule.split(m, [_blocks(steps, tile.rows, panels), None])
    schedule.reorder(*batch, block, n, tile_of_panel, m, tile_m, tile_n)
    panel = schedule.fuse(*batch, block, n)
    schedule.parallel(panel)
    in_vectors(schedule, tile_n, registers)

    decodes = any(is_decoding(schedule.get(block)) for block in found.weights)
    inline_weights(schedule, found)
    schedule.compute_at(found.reduction, m, preserve_unit_loops=True)
    *_, row, column, k = schedule.get_loops(found.reduction)
    schedule.reorder(k, row, column)
    schedule.unroll(row)
    in_vectors(schedule, column, registers)
    start = schedule.decompose_reduction(found.reduction, k)
    *_, row, column = schedule.get_loops(start)
    schedule.unroll(row)
    in_vectors(schedule, column, registers)

    schedule.compute_at(weights, panel, preserve_unit_loops=True)

    def of_tiles(*index: tirx.Var) -> tuple[tirx.Expr, ...]:
        *outer, k, n = (*index[:-2], index[-1], index[-2]) if k_is_last else index
        return (*outer, n // tile.columns, k, n % tile.columns)

    schedule.transform_layout(weights, ("write", 0), of_tiles)
    if not k_is_last:
        _, column = schedule.split(schedule.get_loops(weights)[-1], [None, tile.columns])
        if decodes:
            in_words(schedule, column)
        else:
            in_vectors(schedule, column, registers)


def _copy_weights(schedule: Schedule, found: Anchored, tile: MatmulTile) -> Block:
    """Return the copy of the weights, yet to be placed, and pad the rows to whole tiles in a copy of the left operand.

    Rows past the end are zeros, and their results are not written.
    """
    *batch, rows, _, _ = extents(schedule, schedule.get_loops(found.reduction))
    if tile.rows == 0 or rows % tile.rows == 0:  # TVM refuses a search's tile of no rows where loops are split
        return schedule.cache_read(found.reduction, 1, "global", [found.reduction])
    for index in (0, 1):
        schedule.cache_read(found.reduction, index, "global", [found.reduction])
    schedule.pad_einsum(found.reduction, [*(1 for _ in batch), tile.rows, 1, 1])
    for consumer in schedule.get_consumers(found.reduction):
        try_inline(schedule, consumer)  # the crop, if the product is not the output
    padded, weights = schedule.get_producers(found.reduction)
    for copy in schedule.get_producers(padded):
        schedule.compute_inline(copy)
    *outer, _ = schedule.get_loops(padded)
    schedule.parallel(schedule.fuse(*outer))
    return weights


def _tiles_of_panel(rows: int, columns: int, tile: MatmulTile) -> int:
    """Return how many micro-tiles a panel has side by side: several where one is narrower than a line of the cache.

    So many that TASKS remain with as many blocks of rows as repay packing.
    """
    if tile.columns >= LINE:
        return 1
    most_blocks = max(1, rows // ROWS_OF_A_TASK)
    possible = divisors(columns // tile.columns, PANEL // tile.columns)
    return max(tiles for tiles in possible if tiles == 1 or columns // tile.columns // tiles * most_blocks >= TASKS)


def _blocks(steps: int, rows: int, panels: int) -> int:
    """Return into how many blocks the `steps` micro-tiles of so many rows are divided.

    As few as make TASKS with `panels` and have MOST_ROWS_OF_A_TASK; if none do, as many as repay packing.
    """
    possible = [blocks for blocks in divisors(steps, steps) if steps // blocks * rows >= ROWS_OF_A_TASK] or [1]
    wanted = (
        blocks for blocks in possible if panels * blocks >= TASKS and steps // blocks * rows <= MOST_ROWS_OF_A_TASK
    )
    return next(wanted, possible[-1])


def _along_k(schedule: Schedule, found: Anchored, registers: Registers) -> None:
    inline_weights(schedule, found)
    *_, k = schedule.get_loops(found.reduction)
    (depth,) = extents(schedule, [k])
    _, lane = schedule.split(k, [None, divisors(depth, 2 * registers.lanes)[-1]])
    partial = schedule.rfactor(lane, 0)
    schedule.set_scope(partial, 0, "local")

    outer = schedule.fuse(*schedule.get_loops(found.epilogue))
    (numbers,) = extents(schedule, [outer])
    if numbers * depth >= WORTH_A_THREAD:
        schedule.parallel(outer)
    schedule.compute_at(found.reduction, outer, preserve_unit_loops=True)
    schedule.compute_at(partial, outer, preserve_unit_loops=True)
    _, lanes, *_, step = schedule.get_loops(partial)
    schedule.reorder(step, lanes)
    schedule.vectorize(lanes)
    start = schedule.decompose_reduction(partial, step)
    schedule.vectorize(schedule.get_loops(start)[1])


def _output_shape(function: tirx.PrimFunc) -> tuple[int, int]:
    *_, rows, columns = (int(size) for size in function.params[-1].ty.shape)
    return rows, columns

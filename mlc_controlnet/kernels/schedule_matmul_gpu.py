"""Matrix products for GPUs, with whatever elementwise work was fused into them, all in vectors of four.

    tile of a workgroup        64 x 64 of the output, or 32 x 32 if there is little work; 8 x 8 threads. CLIP's 77
                               tokens: 80 x 32, which reads the weights once and leaves 3 rows idle instead of 19
    micro-tile of a thread     8 rows x 8 columns in registers, or 4 x 4; gated: 8 x 2 x 4
    per step                   8 KiB of both operands in workgroup memory: 32 of k for 64 x 64 in float16

What that costs, for 64 x 64 in float16, K deep:

    memory             128 K numbers for 4096 K multiply-adds, 16 a byte; rows of the left operand come in pieces of 64
                       bytes and those of the right one of 128, neighbouring threads a vector each
    workgroup memory   8.8 KB (float32, whose steps are half as long: 9.3 KB), of the 16 KiB that any device has
    loads              16 vectors for 256 multiply-adds: per four of k, 8 rows of the left operand, 4 x 2 of the right
    registers          64 accumulators, 32 of the left operand, 8 of the right one: 104 and a few addresses. Four rows
                       of the right operand and one vector of the left one would be 100, but then two sums wait for each
                       other: GEGLU took a fifth longer on lavapipe

The left operand has k innermost and stays so: a vector is four of k, and its numbers are spread over a row of the
accumulators one by one. The right operand has n innermost, so weights are laid out as [K, N]. Nothing is transposed on
the way, and outputs are written as they are accumulated. Threads that read at once read different banks: rows of the
left operand lie an odd number of vectors apart, and vectors of the right one are dealt out such that those which
neighbouring threads want lie side by side. float16 becomes float32 on the way to the registers, once a load.

A left operand with k outermost (a picture, [C, h w]) comes as vectors of four rows. A right operand with k innermost
(tokens, where a picture is made of them) is transposed in registers on its way to workgroup memory, four vectors at a
time. A gated product computes two outputs at a place from two columns of the weights, and combines them: what GEGLU
wants (arXiv 2002.05202), whose wider intermediate never reaches memory.

Rows are padded to whole tiles; a depth that is no multiple of four, and columns that no tile divides, are left to
other rules. dlight's rule for WebGPU reads number by number, runs neighbouring threads down the rows, which scatters
every store, and steps 8 numbers of k.
"""

import math
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.runtime import DataType
from tvm.s_tir import Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, Block, anchor, extents, try_inline
from mlc_controlnet.kernels.integers import ceil_div, next_power_of_two, round_up
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS

STEP_BYTES = 8 * 1024  # of both operands, in workgroup memory at once
TALL = 20  # threads down a tile of 80 rows
LEAST_ROWS = 8  # fewer are a matrix times a few vectors: one thread an output is better


@dataclass(frozen=True)
class MatmulTile:
    """The part of the result that a workgroup computes, and how its threads share it."""

    threads_y: int
    threads_x: int
    rows: int  # a thread
    columns: int  # a thread

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the result per workgroup."""
        return self.threads_y * self.rows, self.threads_x * self.columns


def choose_tile(batch: int, rows: int, columns: int, gated: bool = False) -> MatmulTile | None:
    """Return the tile for an output of [batch, rows, columns]; None if no tile fits.

    64 accumulators per thread if there is enough work, otherwise 16 (gated: 32).
    """
    if rows < LEAST_ROWS:
        return None
    for size in (8, 4):
        threads_y = min(8, next_power_of_two(ceil_div(rows, size)))
        if size == LANES and round_up(rows, TALL * size) < round_up(rows, threads_y * size):
            threads_y = TALL
        for threads_x in (8, 4):
            tile = MatmulTile(threads_y, threads_x, size, LANES if gated else size)
            tile_rows, tile_columns = tile.shape
            workgroups = batch * round_up(rows, tile_rows) // tile_rows * (columns // tile_columns)
            if columns % tile_columns == 0 and (size == LANES or workgroups >= ENOUGH_WORKGROUPS):
                return tile
    return None


def choose_step(depth: int, tile: MatmulTile, gates: int, item_bytes: int) -> int | None:
    """Return how much of k one step covers; None if k is not a multiple of a vector."""
    rows, columns = tile.shape
    fits = STEP_BYTES // ((rows + (1 + gates) * columns) * item_bytes)
    steps = (1 << exponent for exponent in reversed(range(fits.bit_length())))
    return next((step for step in steps if step >= LANES and depth % step == 0), None)


class MatrixProduct(GPUScheduleRule):
    """Schedules a fused PrimFunc around one product of two matrices, gated or not; leaves the rest to other rules."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        shape = tuple(int(size) for size in func.params[-1].ty.shape)
        if len(shape) not in (2, 3):
            return None
        for gates in (0, 1):
            schedule = Schedule(func)
            tile = choose_tile(math.prod(shape[:-2]), shape[-2], shape[-1], gated=bool(gates))
            found = anchor(schedule, "S" * (len(shape) + gates) + "R")
            if tile is None or found is None or found.pads:
                continue
            k_is_last = _k_is_last(schedule, found.reduction, gates)
            if k_is_last is None:
                continue
            (depth,) = extents(schedule, schedule.get_loops(found.reduction)[-1:])
            item = DataType(str(schedule.get(found.reduction).reads[0].source.dtype)).itemsize
            step = choose_step(depth, tile, gates, item)
            if step is not None:
                return _schedule(schedule, found, tile, step, k_is_last, gates)
        return None


def _schedule(
    schedule: Schedule, found: Anchored, tile: MatmulTile, step: int, k_is_last: tuple[bool, bool], gates: int
) -> Schedule:
    """Schedule a product with the axes [batch.., m, n, k], or with a gate [batch.., m, gate, n, k]."""
    product = found.reduction
    sizes = extents(schedule, schedule.get_loops(product))
    multiples = [1] * len(sizes)
    multiples[-3 - gates] = tile.shape[0]
    if sizes[-3 - gates] % tile.shape[0]:
        _pad(schedule, product, multiples)
    left, right = (schedule.cache_read(product, index, "shared") for index in (0, 1))
    left_registers, right_registers = (schedule.cache_read(product, index, "local") for index in (0, 1))
    for block in (left, right):
        _inline_producers(schedule, block)
    for block in (left_registers, right_registers):
        schedule.unsafe_set_dtype(block, 0, "float32")

    *batch, m, n = schedule.get_loops(found.epilogue)
    m0, m1, m2 = schedule.split(m, [None, tile.threads_y, tile.rows])
    n0, n1, n2 = schedule.split(n, [None, tile.threads_x, tile.columns])
    schedule.reorder(*batch, m0, n0, m1, n1, m2, n2)
    schedule.bind(n0, "blockIdx.x")
    schedule.bind(schedule.fuse(*batch, m0), "blockIdx.y")
    schedule.bind(m1, "threadIdx.y")
    schedule.bind(n1, "threadIdx.x")
    schedule.compute_at(product, n1, preserve_unit_loops=True)
    m, *gate, n, k = schedule.get_loops(product)[-3 - gates :]
    k0, k1, k2 = schedule.split(k, [None, step // LANES, LANES])
    schedule.reorder(k0, k1, k2, m, *gate, n)
    # A vector of the left operand is four of k if k is its last axis.
    schedule.compute_at(left_registers, k1 if k_is_last[0] else k2, preserve_unit_loops=True)
    schedule.compute_at(right_registers, k2, preserve_unit_loops=True)
    _load(schedule, left, k0, tile, axes=2)
    (_spread_rows if k_is_last[0] else _spread_vectors)(schedule, left, tile.rows)
    if k_is_last[1]:
        _load_transposed(schedule, right, k0, tile, axes=2 + gates)
        schedule.transform_layout(right_registers, ("write", 0), _transposed)
    else:
        _load(schedule, right, k0, tile, axes=2 + gates)
    _spread_vectors(schedule, right, tile.columns)

    if k_is_last[0]:
        schedule.unroll(k2)
    _write_out(schedule, m, *gate, n)
    start = schedule.decompose_reduction(product, k0)
    _write_out(schedule, *schedule.get_loops(start)[-2 - gates :])
    _write_out(schedule, *schedule.get_loops(found.epilogue)[-2:])
    _write_out(schedule, *schedule.get_loops(left_registers)[-2:])
    *outer, n, k = schedule.get_loops(right_registers)[-2 - gates :]
    _write_out(schedule, *((*outer, k, n) if k_is_last[1] else (*outer, n, k)))
    return _unrounded(schedule, [left_registers, right_registers])


def _unrounded(schedule: Schedule, blocks: list[Block]) -> Schedule:
    """Remove the roundings that `unsafe_set_dtype` put at reads of registers, whose values are rounded already."""
    registers = [schedule.get(block).writes[0].source for block in blocks]

    def is_register(expr: tirx.Expr) -> bool:
        return isinstance(expr, TensorLoad) and any(expr.source.same_as(buffer) for buffer in registers)

    def read(cast: tirx.Cast) -> tirx.Expr:
        rounded = cast.value
        return rounded.value if isinstance(rounded, tirx.Cast) and is_register(rounded.value) else cast

    function = tvm_ffi.structural_map(schedule.mod["main"], (tirx.Cast, read))
    return Schedule(tvm.IRModule({"main": function}), enable_check=False)


def _load(schedule: Schedule, block: Block, place: Block, tile: MatmulTile, axes: int) -> None:
    """Bring an operand to workgroup memory in vectors: neighbouring threads copy neighbouring vectors."""
    schedule.compute_at(block, place, preserve_unit_loops=True)
    *outer, inner = schedule.get_loops(block)[-axes:]
    vectors, vector = schedule.split(inner, [None, LANES])
    _share_among_threads(schedule, schedule.fuse(*outer, vectors), tile)
    schedule.vectorize(vector)


def _load_transposed(schedule: Schedule, block: Block, place: Block, tile: MatmulTile, axes: int) -> None:
    """[.., n, k] -> [.., k, n]: a thread takes four vectors of four of k, and stores four of four of n."""
    taken = schedule.cache_read(block, 0, "local")
    schedule.compute_at(block, place, preserve_unit_loops=True)
    *outer, n, k = schedule.get_loops(block)[-axes:]
    n0, n1 = schedule.split(n, [None, LANES])
    k0, k1 = schedule.split(k, [None, LANES])
    schedule.reorder(*outer, k0, n0, k1, n1)
    thread = _share_among_threads(schedule, schedule.fuse(*outer, k0, n0), tile)
    schedule.compute_at(taken, thread, preserve_unit_loops=True)
    _write_out(schedule, *schedule.get_loops(taken)[-2:])
    _write_out(schedule, k1, n1)
    schedule.transform_layout(block, ("write", 0), _transposed)


def _transposed(*index: tirx.Var) -> tuple[tirx.Var, ...]:
    return (*index[:-2], index[-1], index[-2])


def _share_among_threads(schedule: Schedule, loop: Block, tile: MatmulTile) -> Block:
    """Share a row among threads. Returns the loop over the threads."""
    _, ty, tx = schedule.split(loop, [None, tile.threads_y, tile.threads_x])
    schedule.bind(ty, "threadIdx.y")
    schedule.bind(tx, "threadIdx.x")
    return tx


def _spread_rows(schedule: Schedule, block: Block, own: int) -> None:
    """[m, k] -> [m % own, m // own, k], one vector between: threads' rows lie an odd number of vectors apart."""
    schedule.transform_layout(
        block, ("write", 0), lambda *index: (*index[:-2], index[-2] % own, index[-2] // own, index[-1])
    )
    for axis in (-2, -3):
        schedule.storage_align(block, 0, axis=axis, factor=2 * LANES, offset=LANES)


def _spread_vectors(schedule: Schedule, block: Block, own: int) -> None:
    """[k, n] -> [k, n % own // 4, n // own, n % 4]: what threads read at once lies side by side."""
    if own > LANES:
        schedule.transform_layout(
            block,
            ("write", 0),
            lambda *index: (*index[:-1], index[-1] % own // LANES, index[-1] // own, index[-1] % LANES),
        )


def _write_out(schedule: Schedule, *loops: Block) -> None:
    """Unroll loops over registers, the last one into vectors: a register has no address to compute."""
    *outer, last = loops
    groups, vector = schedule.split(last, [None, LANES])
    for loop in (*outer, groups):
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _pad(schedule: Schedule, product: Block, multiples: list[int]) -> None:
    """Round the loops up: numbers past the end are read as zeros and not written."""
    for index in (0, 1):
        schedule.cache_read(product, index, "global")
    schedule.pad_einsum(product, multiples)
    for consumer in schedule.get_consumers(product):
        try_inline(schedule, consumer)  # the crop, if rows were added; the epilogue stays, as the output


def _inline_producers(schedule: Schedule, block: Block) -> None:
    for producer in schedule.get_producers(block):
        _inline_producers(schedule, producer)
        try_inline(schedule, producer)


def _k_is_last(schedule: Schedule, block: Block, gates: int) -> tuple[bool, bool] | None:
    """Return whether k is the last axis, as in out[.., m, n] += left[.., m, k] * right[.., n, k], of left and right.

    With a gate: out[.., m, g, n] += left[.., m, k] * right[.., g, n, k]. Otherwise k lies before the operand's own
    axes. None for any other reduction. An operand may lack the batch.
    """
    statement = schedule.get(block)
    if len(statement.reads) != 2:
        return None
    *batch_m_gate, n, k = (axis.var for axis in statement.iter_vars)
    *batch, m = batch_m_gate[: len(batch_m_gate) - gates]
    gate = batch_m_gate[len(batch_m_gate) - gates :]
    found = []
    for read, own in zip(statement.reads, ([m], [*gate, n]), strict=True):
        indices = [r.min for r in read.region]
        last = [_same(indices, [*outer, *own, k]) for outer in (batch, [])]
        first = [_same(indices, [*outer, k, *own]) for outer in (batch, [])]
        if not any(last) and not any(first):
            return None
        found.append(any(last))
    left, right = found
    return left, right


def _same(indices: list[tirx.Expr], variables: list[tirx.Var]) -> bool:
    return len(indices) == len(variables) and all(i.same_as(v) for i, v in zip(indices, variables, strict=True))

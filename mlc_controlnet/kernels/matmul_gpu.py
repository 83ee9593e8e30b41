"""Matrix products for GPUs, with whatever elementwise work was fused into them.

    tile of a workgroup        rows x columns of the output; neighbouring threads own neighbouring columns, so that
                               weights are read and outputs are written side by side
    micro-tile of a thread     4 rows x 4 columns in registers, 16 multiply-adds for 8 loads, or 8 x 8, 64 for 16
    per step                   16 numbers of k of both operands in workgroup memory, k outermost: what a thread wants
                               lies side by side. A row is one number longer than the memory's banks are many, so that
                               the transposing stores spread over all of them.

dlight's rule for WebGPU runs neighbouring threads down the rows, which scatters every store, and steps 8 numbers of k.
"""

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, Block, anchor, extents, try_inline

STEP = 16  # of k
VECTOR = 4
BANKS = 32
# A GPU with fewer workgroups than this to run leaves most of its cores idle: smaller tiles are better then.
ENOUGH_WORKGROUPS = 128
LEAST_ROWS = 8  # fewer are a matrix times a few vectors: one thread an output is better


@dataclass(frozen=True)
class MatmulTile:
    """What a workgroup computes, and how its threads share it."""

    threads_y: int
    threads_x: int
    rows: int  # a thread
    columns: int  # a thread

    @property
    def shape(self) -> tuple[int, int]:
        return self.threads_y * self.rows, self.threads_x * self.columns


def choose_tile(batch: int, rows: int, columns: int) -> MatmulTile | None:
    """The tile for an output of [batch, rows, columns]; None where no tile fits."""
    if rows < LEAST_ROWS:
        return None
    for size in (8, 4):
        threads_y = min(8, _power_of_two(-(-rows // size)))
        for threads_x in (8, 4):
            tile = MatmulTile(threads_y, threads_x, size, size)
            tile_rows, tile_columns = tile.shape
            workgroups = batch * math.ceil(rows / tile_rows) * (columns // tile_columns)
            if columns % tile_columns == 0 and (size == VECTOR or workgroups >= ENOUGH_WORKGROUPS):
                return tile
    return None


class MatrixProduct(GPUScheduleRule):
    """Schedules a fused PrimFunc around one product of activations and weights [N, K]; leaves everything else alone."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        shape = tuple(int(size) for size in func.params[-1].ty.shape)
        if len(shape) not in (2, 3):
            return None
        tile = choose_tile(math.prod(shape[:-2]), *shape[-2:])
        if tile is None:
            return None
        schedule = Schedule(func)
        found = anchor(schedule, "S" * len(shape) + "R")
        if found is None or found.pads or not _is_product(schedule, found.reduction):
            return None
        _schedule(schedule, found, tile)
        return schedule


def _schedule(schedule: Schedule, found: Anchored, tile: MatmulTile) -> None:
    product = found.reduction
    *outer, rows, _, depth = extents(schedule, schedule.get_loops(product))
    tile_rows, _ = tile.shape
    if rows % tile_rows or depth % STEP:
        _pad(schedule, product, [1] * len(outer) + [tile_rows, 1, STEP])
    operands = [schedule.cache_read(product, index, "shared") for index in (0, 1)]
    registers = [schedule.cache_read(product, index, "local") for index in (0, 1)]
    for block in operands:
        _inline_producers(schedule, block)
    upward = [found.epilogue] if found.copies else [found.epilogue, schedule.cache_write(found.epilogue, 0, "local")]

    *batch, m, n, k = schedule.get_loops(product)
    m0, m1, m2 = schedule.split(m, [None, tile.threads_y, tile.rows])
    n0, n1, n2, n3 = schedule.split(n, [None, tile.threads_x, tile.columns // VECTOR, VECTOR])
    k0, k1 = schedule.split(k, [None, STEP])
    schedule.reorder(*batch, m0, n0, m1, n1, k0, k1, m2, n2, n3)
    schedule.bind(n0, "blockIdx.x")
    schedule.bind(schedule.fuse(*batch, m0), "blockIdx.y")
    schedule.bind(m1, "threadIdx.y")
    schedule.bind(n1, "threadIdx.x")
    for block in registers:
        schedule.compute_at(block, k1, preserve_unit_loops=True)
    for block in operands:
        schedule.compute_at(block, k0, preserve_unit_loops=True)
        elements = schedule.fuse(*schedule.get_loops(block)[-2:])
        _, ty, tx = schedule.split(elements, [None, tile.threads_y, tile.threads_x])
        schedule.bind(ty, "threadIdx.y")
        schedule.bind(tx, "threadIdx.x")
        schedule.transform_layout(block, ("write", 0), lambda *index: (*index[:-2], index[-1], index[-2]))
        schedule.storage_align(block, 0, axis=-2, factor=BANKS, offset=1)
    activations, weights = registers
    schedule.unroll(schedule.get_loops(activations)[-2])
    _write_out(schedule, *schedule.split(schedule.get_loops(weights)[-2], [None, VECTOR]))
    _write_out(schedule, m2, n2, n3)
    start = schedule.decompose_reduction(product, k0)
    _write_out(schedule, *schedule.get_loops(start)[-3:])
    for block in upward:
        schedule.reverse_compute_at(block, n1, preserve_unit_loops=True)
        row, column = schedule.get_loops(block)[-2:]
        groups, vector = schedule.split(column, [None, VECTOR])
        _write_out(schedule, row, groups, vector)


def _write_out(schedule: Schedule, *loops: Block) -> None:
    """Unroll loops over registers, the last one into vectors: a register has no address to compute."""
    *outer, vector = loops
    for loop in outer:
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _pad(schedule: Schedule, product: Block, multiples: list[int]) -> None:
    """Round the loops up: what lies past the end is read as zeros and not written."""
    for index in (0, 1):
        schedule.cache_read(product, index, "global")
    schedule.pad_einsum(product, multiples)
    for consumer in schedule.get_consumers(product):
        try_inline(schedule, consumer)  # the crop, where rows were added; the epilogue stays, as the output


def _inline_producers(schedule: Schedule, block: Block) -> None:
    for producer in schedule.get_producers(block):
        _inline_producers(schedule, producer)
        try_inline(schedule, producer)


def _is_product(schedule: Schedule, block: Block) -> bool:
    """out[.., m, n] += data[.., m, k] * weights[n, k], by structure."""
    statement = schedule.get(block)
    if len(statement.reads) != 2:
        return False
    *batch, m, n, k = (axis.var for axis in statement.iter_vars)
    for read, variables in zip(statement.reads, ([*batch, m, k], [n, k]), strict=True):
        indices = [r.min for r in read.region]
        if len(indices) != len(variables) or not all(i.same_as(v) for i, v in zip(indices, variables, strict=True)):
            return False
    return True


def _power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()

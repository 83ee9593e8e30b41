"""Matrix products for GPUs, with whatever elementwise work was fused into them.

    tile of a workgroup        rows x columns of the output; neighbouring threads own neighbouring columns, so that
                               outputs are written side by side
    micro-tile of a thread     4 rows x 4 columns in registers, 16 multiply-adds for 8 loads, or 8 x 8, 64 for 16
    per step                   16 numbers of k of both operands in workgroup memory, k outermost: what a thread wants
                               lies side by side. Where memory has k innermost, a row is one number longer than the
                               memory's banks are many, so that the transposing stores spread over all of them.

Either operand may have k innermost or outermost: neighbouring threads read neighbouring numbers in both cases.
A gated product computes two outputs at a place from two rows of the weights, and combines them: what GEGLU wants (arXiv
2002.05202), whose wider intermediate never reaches memory.
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


def choose_tile(batch: int, rows: int, columns: int, gated: bool = False) -> MatmulTile | None:
    """The tile for an output of [batch, rows, columns]; None where no tile fits.

    64 accumulators a thread where there is work enough, otherwise 16 (gated: 32).
    """
    if rows < LEAST_ROWS:
        return None
    for size in (8, 4):
        threads_y = min(8, _power_of_two(-(-rows // size)))
        for threads_x in (8, 4):
            tile = MatmulTile(threads_y, threads_x, size, VECTOR if gated else size)
            tile_rows, tile_columns = tile.shape
            workgroups = batch * math.ceil(rows / tile_rows) * (columns // tile_columns)
            if columns % tile_columns == 0 and (size == VECTOR or workgroups >= ENOUGH_WORKGROUPS):
                return tile
    return None


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
            transposed = _transposed_operands(schedule, found.reduction, gates)
            if transposed is not None:
                _schedule(schedule, found, tile, transposed, gates)
                return schedule
        return None


def _schedule(schedule: Schedule, found: Anchored, tile: MatmulTile, transposed: tuple[bool, bool], gates: int) -> None:
    """The product's axes are [batch.., m, n, k], or with a gate [batch.., m, gate, n, k]."""
    product = found.reduction
    row_axis = -3 - gates
    sizes = extents(schedule, schedule.get_loops(product))
    multiples = [1] * len(sizes)
    multiples[row_axis], multiples[-1] = tile.shape[0], STEP
    if any(size % multiple for size, multiple in zip(sizes, multiples, strict=True)):
        _pad(schedule, product, multiples)
    operands = [schedule.cache_read(product, index, "shared") for index in (0, 1)]
    registers = [schedule.cache_read(product, index, "local") for index in (0, 1)]
    for block in operands:
        _inline_producers(schedule, block)
    downward = [product] if found.copies else [found.epilogue, product]
    stored = found.epilogue if found.copies else schedule.cache_write(found.epilogue, 0, "local")

    *batch, m, n = schedule.get_loops(stored)
    m0, m1, m2 = schedule.split(m, [None, tile.threads_y, tile.rows])
    n0, n1, n2 = schedule.split(n, [None, tile.threads_x, tile.columns])
    schedule.reorder(*batch, m0, n0, m1, n1, m2, n2)
    schedule.bind(n0, "blockIdx.x")
    schedule.bind(schedule.fuse(*batch, m0), "blockIdx.y")
    schedule.bind(m1, "threadIdx.y")
    schedule.bind(n1, "threadIdx.x")
    for block in downward:
        schedule.compute_at(block, n1, preserve_unit_loops=True)
    *gate, n, k = schedule.get_loops(product)[-2 - gates :]
    m = schedule.get_loops(product)[row_axis]
    k0, k1 = schedule.split(k, [None, STEP])
    schedule.reorder(k0, k1, *gate, m, n)
    for block in registers:
        schedule.compute_at(block, k1, preserve_unit_loops=True)
    for block, k_is_last, axes in zip(operands, transposed, (2, 2 + gates), strict=True):
        schedule.compute_at(block, k0, preserve_unit_loops=True)
        elements = schedule.fuse(*schedule.get_loops(block)[-axes:])
        _, ty, tx = schedule.split(elements, [None, tile.threads_y, tile.threads_x])
        schedule.bind(ty, "threadIdx.y")
        schedule.bind(tx, "threadIdx.x")
        if k_is_last:
            schedule.transform_layout(block, ("write", 0), lambda *index: (*index[:-2], index[-1], index[-2]))
            schedule.storage_align(block, 0, axis=-2, factor=BANKS, offset=1)

    left, right = (schedule.get_loops(block) for block in registers)
    schedule.unroll(left[-2 if transposed[0] else -1])
    _write_out(schedule, *right[-2 - gates : -2], right[-2 if transposed[1] else -1])
    _write_out(schedule, *gate, m, n)
    start = schedule.decompose_reduction(product, k0)
    _write_out(schedule, *schedule.get_loops(start)[-2 - gates :])
    for block in (*downward[:-1], stored):
        _write_out(schedule, *schedule.get_loops(block)[-2:])


def _write_out(schedule: Schedule, *loops: Block) -> None:
    """Unroll loops over registers, the last one into vectors: a register has no address to compute."""
    *outer, last = loops
    groups, vector = schedule.split(last, [None, VECTOR])
    for loop in (*outer, groups):
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


def _transposed_operands(schedule: Schedule, block: Block, gates: int) -> tuple[bool, bool] | None:
    """Whether k is the last axis, as in out[.., m, n] += left[.., m, k] * right[.., n, k], of left and right.

    With a gate: out[.., m, g, n] += left[.., m, k] * right[g, n, k]. None for any other reduction. An operand may lack
    the batch.
    """
    statement = schedule.get(block)
    if len(statement.reads) != 2:
        return None
    variables = [axis.var for axis in statement.iter_vars]
    batch, m, gate, (n, k) = variables[: -3 - gates], variables[-3 - gates], variables[-2 - gates : -2], variables[-2:]
    found = []
    for read, own, own_outer in zip(statement.reads, (m, n), (batch, gate or batch), strict=True):
        indices = [r.min for r in read.region]
        outer, last_two = indices[:-2], indices[-2:]
        if (outer or (gate and own is n)) and not _same(outer, own_outer):
            return None
        if not _same(last_two, [own, k]) and not _same(last_two, [k, own]):
            return None
        found.append(_same(last_two, [own, k]))
    left, right = found
    return left, right


def _same(indices: list[tirx.Expr], variables: list[tirx.Var]) -> bool:
    return len(indices) == len(variables) and all(i.same_as(v) for i, v in zip(indices, variables, strict=True))


def _power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()

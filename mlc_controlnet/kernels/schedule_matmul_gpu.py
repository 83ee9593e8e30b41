"""Matrix products for GPUs, with whatever elementwise work was fused into them, all in vectors of four.

    tile of a workgroup        64 x 64 of the output if there is enough work, see `matmul_tile.py`
    micro-tile of a thread     float16: 4 rows x 8 or 4 columns; gated 4 x 2 x 4. float32: 8 x 8, 4 x 8; gated 8 x 2 x 4
    per step                   8 KiB of both operands in workgroup memory: 32 of k for 64 x 64 in float16
    sums                       float16: packed, over runs of 16 of k, each run added to float32, see `float16_sums.py`

What that costs, for 64 x 64 and K deep:

    memory             128 K numbers for 4096 K multiply-adds, float16 16 a byte; rows of the left operand come in
                       pieces of 64 bytes and those of the right one of 128, neighbouring threads a vector each
    workgroup memory   8.8 KB (float32, whose steps are half as long: 9.3 KB), of the 16 KiB that any device has
    loads, float16     per four of k, 4 vectors of the left operand, 4 x 2 of the right one, which lie side by side and
                       come as one of 16 bytes: 128 multiply-adds for 8 loads
    instructions       float16, per run: 256 packed multiply-adds and 32 mixed ones. RADV for navi31, the whole step
                       with its loads: 1.68 multiply-adds an instruction, 18 a load of workgroup memory, 120 registers,
                       12 waves a SIMD; nvcc for sm_89: 79 registers. With sums in float32 alone it was 0.98
    loads, float32     16 vectors for 256 multiply-adds; 104 registers and a few addresses. Four rows of the right
                       operand and one vector of the left one would be 100, but then two sums wait for each other: GEGLU
                       took a fifth longer on lavapipe

The left operand has k innermost and stays so: a vector is four of k, and its numbers are spread over a row of the
accumulators one by one. The right operand has n innermost, so weights are laid out as [K, N]. Nothing is transposed on
the way, and outputs are written as they are accumulated. Threads that read at once read different banks: rows of the
left operand lie an odd number of vectors apart, and float32 vectors of the right one are dealt out such that those
which neighbouring threads want lie side by side. float16 is never converted, only the sum of a run is.

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
from tvm.s_tir import Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, Block, anchor, extents, try_inline
from mlc_controlnet.kernels.decoding import is_decoding
from mlc_controlnet.kernels.float16_sums import sum_in_runs
from mlc_controlnet.kernels.matmul_operands_gpu import bring_operands, share_among_threads, unroll_in_vectors
from mlc_controlnet.kernels.matmul_tile import (
    MatmulTile,
    Product,
    Side,
    choose_tile,
    decisions_of,
    has_tile,
    list_tiles,
    tile_of,
)
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import LANES

VERSION = 1  # of what a search's decisions mean


class MatrixProduct(GPUScheduleRule):
    """Schedules a fused PrimFunc around one product of two matrices, gated or not; leaves the rest to other rules."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        found = _find(func)
        tile = None if found is None else choose_tile(found.product)
        return None if found is None or tile is None else _schedule(found, tile)


def tunable_matmul(function: tirx.PrimFunc, _target: Target) -> Tunable | None:
    """Return what there is to decide about a product; None if the function is none that a tile fits."""
    found = _find(function)
    chosen = None if found is None else choose_tile(found.product)
    if found is None or chosen is None:
        return None
    product = found.product
    layouts = tuple("k is last" if last else "k is first" for last in found.k_is_last)

    def apply(decisions: Decisions) -> tirx.PrimFunc:
        again = _find(function)
        assert again is not None, "it was found before"
        return _schedule(again, tile_of(product, decisions)).mod["main"]

    axes = (product.batch, product.rows, 1 + product.is_gated, product.columns, product.depth)
    return Tunable(
        Operation("matmul_gpu", VERSION, axes, (*layouts, product.dtype), params_of(function)),
        decisions_of(chosen),
        lambda: [decisions_of(tile) for tile in list_tiles(product)],
        apply,
        math.prod(axes),
    )


@dataclass(frozen=True)
class _Found:
    """A product in a schedule: its anchored form, whether k is the last axis of each operand, and its sizes."""

    schedule: Schedule
    anchored: Anchored
    k_is_last: tuple[bool, bool]
    product: Product


def _find(function: tirx.PrimFunc) -> _Found | None:
    shape = [int(size) for size in function.params[-1].ty.shape]
    if len(shape) not in (2, 3) or not has_tile(*shape[-2:]):
        return None
    *batch, rows, columns = shape
    for gates in (0, 1):
        schedule = Schedule(function)
        found = anchor(schedule, "S" * (len(batch) + 2 + gates) + "R")
        if found is None or found.pads:
            continue
        k_is_last = _k_is_last(schedule, found.reduction, gates)
        if k_is_last is None:
            continue
        (depth,) = extents(schedule, schedule.get_loops(found.reduction)[-1:])
        dtype = str(schedule.get(found.reduction).reads[0].source.dtype)
        packed = _packed_side(schedule, found)
        product = Product(math.prod(batch), rows, columns, depth, dtype, bool(gates), k_is_last[1], packed)
        return _Found(schedule, found, k_is_last, product)
    return None


def _packed_side(schedule: Schedule, found: Anchored) -> Side | None:
    decoded = [schedule.get(block).writes[0].source for block in found.weights if is_decoding(schedule.get(block))]
    left, right = (
        any(operand.source.same_as(weight) for weight in decoded) for operand in schedule.get(found.reduction).reads
    )
    return "left" if left else "right" if right else None


def _schedule(found: _Found, tile: MatmulTile) -> Schedule:
    """Schedule a product with the axes [batch.., m, n, k], or with a gate [batch.., m, gate, n, k]."""
    schedule, k_is_last, gates = found.schedule, found.k_is_last, int(found.product.is_gated)
    product, epilogue = found.anchored.reduction, found.anchored.epilogue
    _pad_rows(schedule, product, tile, gates)
    sums = product
    if tile.run is not None:
        last = schedule.get(epilogue).name_hint
        schedule, *names = sum_in_runs(schedule, product, tile.run)
        product, sums, epilogue = (schedule.get_sblock(name) for name in (*names, last))
    # Of the product alone: an epilogue may add its left operand.
    operands = [schedule.cache_read(product, index, "shared", [product]) for index in (0, 1)]
    registers = [schedule.cache_read(product, index, "local", [product]) for index in (0, 1)]
    for block in operands:
        _inline_producers(schedule, block)
    if tile.run is None:
        for block in registers:
            schedule.unsafe_set_dtype(block, 0, "float32")

    if tile.slices > 1:
        sums = _place_slices(schedule, sums, epilogue, tile)
        product = sums if tile.run is None else product
    else:
        _place(schedule, sums, epilogue, tile)
    k0, k1, k2 = _walk_over_k(schedule, sums, product, tile, gates)
    # A vector of the left operand is four of k if k is its last axis.
    schedule.compute_at(registers[0], k1 if k_is_last[0] else k2, preserve_unit_loops=True)
    schedule.compute_at(registers[1], k2, preserve_unit_loops=True)
    bring_operands(schedule, operands, registers, k0, tile, k_is_last, gates)
    if k_is_last[0]:
        schedule.unroll(k2)

    sums_from = [(sums, k0)] if tile.run is None else [(sums, k0), (product, k1)]
    for block, _ in sums_from:
        unroll_in_vectors(schedule, *schedule.get_loops(block)[-2 - gates :])
    for block, first in sums_from:
        start = schedule.decompose_reduction(block, first)
        unroll_in_vectors(schedule, *schedule.get_loops(start)[-2 - gates :])
    if tile.slices == 1:
        unroll_in_vectors(schedule, *schedule.get_loops(epilogue)[-2:])
    unroll_in_vectors(schedule, *schedule.get_loops(registers[0])[-2:])
    *outer, n, k = schedule.get_loops(registers[1])[-2 - gates :]
    unroll_in_vectors(schedule, *((*outer, k, n) if k_is_last[1] else (*outer, n, k)))
    return _unrounded(schedule, registers)


def _place(schedule: Schedule, sums: Block, epilogue: Block, tile: MatmulTile) -> None:
    """Bind tiles of the output to workgroups and micro-tiles to threads, and sum where they are written."""
    *batch, m, n = schedule.get_loops(epilogue)
    m0, m1, m2 = schedule.split(m, [None, tile.threads_y, tile.rows])
    n0, n1, n2 = schedule.split(n, [None, tile.threads_x, tile.columns])
    schedule.reorder(*batch, m0, n0, m1, n1, m2, n2)
    schedule.bind(n0, "blockIdx.x")
    schedule.bind(schedule.fuse(*batch, m0), "blockIdx.y")
    schedule.bind(m1, "threadIdx.y")
    schedule.bind(n1, "threadIdx.x")
    schedule.compute_at(sums, n1, preserve_unit_loops=True)


def _place_slices(schedule: Schedule, sums: Block, epilogue: Block, tile: MatmulTile) -> Block:
    """Place a tile of which each thread sums one slice of the depth, then all threads add up slices of its vectors.

    Before: sum[m, n] += runs[k, m, n]
    After:  partial[slice, m, n] += runs[k slices + slice, m, n]; sum[m, n] += partial[slice, m, n]

    Returns the block of `partial`, whose results pass through workgroup memory.
    """
    # Float32 has no runs: a slice is every so many vectors of k.
    _, part, *_ = schedule.split(
        schedule.get_loops(sums)[-1], [None, tile.slices, *([LANES] if tile.run is None else [])]
    )
    partial = schedule.rfactor(part, 0)
    shared = schedule.cache_read(sums, 0, "shared")
    *batch, m, n = schedule.get_loops(epilogue)
    m0, m = schedule.split(m, [None, tile.shape[0]])
    n0, vectors, vector = schedule.split(n, [None, tile.shape[1] // LANES, LANES])
    schedule.reorder(*batch, m0, n0, m, vectors, vector)
    schedule.bind(n0, "blockIdx.x")
    schedule.bind(schedule.fuse(*batch, m0), "blockIdx.y")
    thread = share_among_threads(schedule, schedule.fuse(m, vectors), tile)
    schedule.vectorize(vector)
    schedule.compute_at(sums, thread, preserve_unit_loops=True)
    part, *_, vector = schedule.get_loops(sums)[-len(batch) - 3 :]
    schedule.vectorize(vector)
    start = schedule.decompose_reduction(sums, part)
    schedule.vectorize(schedule.get_loops(start)[-1])

    schedule.compute_at(shared, n0, preserve_unit_loops=True)
    part, *batch, m, n = schedule.get_loops(shared)[-len(batch) - 3 :]
    m1, m2 = schedule.split(m, [None, tile.rows])
    n1, n2 = schedule.split(n, [None, tile.columns])
    schedule.reorder(part, m1, n1, *batch, m2, n2)
    for loop, thread in ((part, "z"), (m1, "y"), (n1, "x")):
        schedule.bind(loop, f"threadIdx.{thread}")
    schedule.compute_at(partial, n1, preserve_unit_loops=True)
    unroll_in_vectors(schedule, m2, n2)
    return partial


def _walk_over_k(
    schedule: Schedule, sums: Block, product: Block, tile: MatmulTile, gates: int
) -> tuple[Block, Block, Block]:
    """Divide the loop over k into steps, vectors of a step (of a run, in float16) and numbers of a vector."""
    axes = schedule.get(sums).iter_vars  # in another order after `rfactor`
    loops = schedule.get_loops(sums)[-len(axes) :]
    over_k: list[Block] = []
    micro_tile: list[Block] = []
    for loop, axis in zip(loops, axes, strict=True):
        (over_k if axis.iter_type == tirx.IterVar.CommReduce else micro_tile).append(loop)
    if tile.run is None:
        vectors, vector = over_k if tile.slices > 1 else schedule.split(over_k[0], [None, LANES])
        k0, k1 = schedule.split(vectors, [None, tile.step // LANES // tile.slices])
        schedule.reorder(k0, k1, vector, *micro_tile)
        return k0, k1, vector
    k0, run = schedule.split(over_k[0], [None, tile.step // tile.run // tile.slices])
    schedule.reorder(k0, run, *micro_tile)
    schedule.compute_at(product, run, preserve_unit_loops=True)
    *micro_tile, k = schedule.get_loops(product)[-3 - gates :]
    k1, k2 = schedule.split(k, [None, LANES])
    schedule.reorder(k1, k2, *micro_tile)
    return k0, k1, k2


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


def _pad_rows(schedule: Schedule, product: Block, tile: MatmulTile, gates: int) -> None:
    """Round the rows up to whole tiles: numbers past the end are read as zeros and not written."""
    sizes = extents(schedule, schedule.get_loops(product))
    if sizes[-3 - gates] % tile.shape[0] == 0:
        return
    multiples = [1] * len(sizes)
    multiples[-3 - gates] = tile.shape[0]
    for index in (0, 1):
        schedule.cache_read(product, index, "global", [product])
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

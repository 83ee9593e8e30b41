"""Schedule convolutions for GPUs: recognizes them, and puts a kernel in their place.

It is that of `winograd_convolution_gpu` for 3x3 taps where that is predicted to take less time, else that of
`direct_convolution_gpu`.

dlight schedules a convolution as an implicit matrix product: every element that it loads is found with four divisions
and four comparisons, again for each of the 3x3 taps. Here a workgroup keeps a tile of the padded input, with its halo,
and of the weights in workgroup memory, and all taps read the same tile. What was fused with the convolution stays:
padding, upsampling or a norm is computed as the input is brought in; bias, residual and silu on the sums.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlock, Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.s_tir.schedule import SBlockRV
from tvm.target import Target

from mlc_controlnet.kernels import winograd_convolution_gpu
from mlc_controlnet.kernels.anchored import Anchored, anchor
from mlc_controlnet.kernels.convolution_tiling_gpu import (
    choose_tiling,
    is_winograd_possible,
    is_winograd_quicker,
    list_tilings,
)
from mlc_controlnet.kernels.decoding import is_decoding
from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Elementwise, Tiling, build
from mlc_controlnet.kernels.doubled_convolution import PHASES
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.winograd_plan_gpu import RESULTS

VERSION = 1  # of what a search's decisions mean
WINOGRAD: Decisions = {"winograd": RESULTS}
TOGETHER, PACKED_TOGETHER = 2, 4  # taps of a doubled picture; four of numbers would take 0.97 to 1.0 of the time


class Convolution(GPUScheduleRule):
    """Replaces a fused PrimFunc around one NCHW convolution; leaves everything else to the rules that follow."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        schedule = Schedule(func)
        found = _find(schedule)
        if found is None:
            return None
        decisions = _choose(_describe(schedule, found.reduction), _packed(schedule, found))
        return Schedule(tvm.IRModule({"main": _build(func, schedule, found, decisions)}), enable_check=False)


def tunable_convolution(function: tirx.PrimFunc, _target: Target) -> Tunable | None:
    """Return what there is to decide about a convolution; None if the function is none."""
    schedule = Schedule(function)
    found = _find(schedule)
    if found is None:
        return None
    shape = _describe(schedule, found.reduction)
    packed = _packed(schedule, found)
    others = [WINOGRAD] if is_winograd_possible(shape, packed) else []
    axes = _shape(schedule, found.reduction)
    form = (f"strides {shape.strides[0]} {shape.strides[1]}", shape.dtype)
    return Tunable(
        Operation("convolution_gpu", VERSION, axes, form, params_of(function)),
        _choose(shape, packed),
        lambda: [*(asdict(tiling) for tiling in list_tilings(shape)), *others],
        partial(_build, function, schedule, found),
        math.prod(axes),
    )


def _find(schedule: Schedule) -> Anchored | None:
    found = anchor(schedule, "SSSSRRR")
    if found is None or not _is_convolution(schedule, found.reduction) or len(found.pads) > 1:
        return None
    if _shape(schedule, found.epilogue)[:4] not in _outputs(_shape(schedule, found.reduction)):
        return None
    return found


def _choose(shape: ConvolutionShape, packed: int) -> Decisions:
    """Return WINOGRAD, or the numbers of the direct kernel's tiling."""
    if is_winograd_possible(shape, packed) and is_winograd_quicker(shape, packed):
        return WINOGRAD
    return asdict(choose_tiling(shape, packed))


def _build(function: tirx.PrimFunc, schedule: Schedule, found: Anchored, decisions: Decisions) -> tirx.PrimFunc:
    shape = _describe(schedule, found.reduction)
    around = _elementwise(schedule, found, shape)
    if decisions == WINOGRAD:
        body = winograd_convolution_gpu.build(shape, around, bool(_packed(schedule, found)))
    else:
        body = build(shape, Tiling(**decisions), around)
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _describe(schedule: Schedule, convolution: SBlockRV) -> ConvolutionShape:
    batch, channels, height, width, depth, *kernel = _shape(schedule, convolution)
    dtype = str(schedule.get(convolution).reads[1].source.dtype)
    kernel_y, kernel_x = kernel
    strides = _strides(schedule, convolution)
    return ConvolutionShape(batch, channels, height, width, depth, (kernel_y, kernel_x), strides, dtype)


def _packed(schedule: Schedule, found: Anchored) -> int:
    """Count the packed numbers that make up a weight; those that are only widened cost an instruction."""
    if not any(is_decoding(schedule.get(block)) for block in found.weights):
        return 0
    return _count_loads(schedule.get(found.reduction).body.value.b.b)


def _elementwise(schedule: Schedule, found: Anchored, shape: ConvolutionShape) -> Elementwise:
    """Take the expressions around a convolution from its blocks."""
    convolution, epilogue = schedule.get(found.reduction), schedule.get(found.epilogue)
    pads = [schedule.get(pad) for pad in found.pads]
    decodings = [schedule.get(block) for block in found.weights]
    product = convolution.body.value.b
    read, weights = _unrounded(product.a), _unrounded(product.b)
    (kernel_y, kernel_x), (sums,) = shape.kernel, (region.source for region in convolution.writes)
    zero = tirx.const(0, "int32")

    def value(b: tirx.Expr, c: tirx.Expr, i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        # The convolution reads (y * stride + ky, ..), which is (i, ..) where y = 0 and ky = i.
        data = _at(convolution, read, (b, zero, zero, zero, c, i, j))
        for pad in pads:
            data = _put_in_place(pad.body.buffer, partial(_at, pad, pad.body.value), data)
        return data

    def weight(b: tirx.Expr, row: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        c, ky, kx = row // (kernel_y * kernel_x), row // kernel_x % kernel_y, row % kernel_x
        number = _at(convolution, weights, (b, n, zero, zero, c, ky, kx))
        for block in decodings:
            number = _put_in_place(block.body.buffer, partial(_at, block, block.body.value), number)
        return number

    def written(b: tirx.Expr, n: tirx.Expr, y: tirx.Expr, x: tirx.Expr) -> tuple[tirx.Expr, ...]:
        if _shape(schedule, found.epilogue)[0] == shape.batch:
            return b, n, y, x
        return b // PHASES, n, 2 * y + b % PHASES // 2, 2 * x + b % 2

    def result(total: tirx.Expr, *at: tirx.Expr) -> tirx.Expr:
        return _put_in_place(sums, lambda _: total, _at(epilogue, epilogue.body.value, written(*at)))

    def place(*at: tirx.Expr) -> list[tirx.Expr]:
        return [_at(epilogue, index, written(*at)) for index in epilogue.body.indices]

    together = 1
    if _count_loads(weights) > 1:
        together = PACKED_TOGETHER if _packed(schedule, found) else TOGETHER
    return Elementwise(value, weight, together, epilogue.body.buffer, place, result)


def _at(block: SBlock, expr: tirx.Expr, index: Sequence[tirx.Expr]) -> tirx.Expr:
    """Return an expression of a block's axes at one index."""
    values = {axis.var: tirx.Cast(str(axis.var.ty), at) for axis, at in zip(block.iter_vars, index, strict=True)}
    return tvm_ffi.structural_map(expr, (tirx.Var, lambda var: values.get(var, var)))


def _count_loads(expr: tirx.Expr) -> int:
    loads: list[TensorLoad] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, loads.append), order="pre")
    return len(loads)


def _put_in_place(buffer: tirx.Buffer, value: Callable[[Sequence[tirx.Expr]], tirx.Expr], expr: tirx.Expr) -> tirx.Expr:
    """Compute what `expr` reads of a buffer where it is read; `value` takes the index."""
    return tvm_ffi.structural_map(
        expr, (TensorLoad, lambda load: value(load.indices) if load.source.same_as(buffer) else load)
    )


def _unrounded(expr: tirx.Expr) -> tirx.Expr:
    """Return what is cast to the dtype of the sums."""
    return expr.value if isinstance(expr, tirx.Cast) else expr


def _is_convolution(schedule: Schedule, block: SBlockRV) -> bool:
    """Recognize out[n, f, y, x] += data[n, c, y * s + ky, x * s + kx] * weight[c, ky, kx, f] by its structure.

    c of the weights may begin at a part of the input channels, which is one of the pictures n of the data.
    """
    statement = schedule.get(block)
    kinds = [int(v.iter_type) for v in statement.iter_vars]
    if kinds != [tirx.IterVar.DataPar] * 4 + [tirx.IterVar.CommReduce] * 3 or len(statement.reads) != 2:
        return False
    data, weight = statement.reads
    if len(data.source.shape) != 4 or len(weight.source.shape) != 4 or len(schedule.get_loops(block)) != 7:
        return False
    n, f, _, _, c, _, _ = (v.var for v in statement.iter_vars)
    taps: list[TensorLoad] = []
    tvm_ffi.structural_walk(statement.body.value.b.b, (TensorLoad, taps.append), order="pre")
    return all(
        tap.source.same_as(weight.source)
        and sym.detect_linear_equation(tap.indices[0], [c])[:1] == [1]
        and tap.indices[3].same_as(f)
        for tap in taps
    ) and all(r.min.same_as(v) for r, v in zip(data.region[:2], (n, c), strict=True))


def _outputs(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes that may follow [B, N, H, W]: the same, or a picture of twice the size made of four phases."""
    batch, channels, height, width, *_ = shape
    return [shape[:4], (batch // PHASES, channels, 2 * height, 2 * width)] if batch % PHASES == 0 else [shape[:4]]


def _strides(schedule: Schedule, block: SBlockRV) -> tuple[int, int]:
    """Return how far the window moves per row and per column: the factors of y and x in the data's indices."""
    statement = schedule.get(block)
    _, _, y, x, _, ky, kx = (v.var for v in statement.iter_vars)
    rows, columns = (r.min for r in statement.reads[0].region[2:])
    factor_y, *_ = sym.detect_linear_equation(rows, [y, ky])
    factor_x, *_ = sym.detect_linear_equation(columns, [x, kx])
    return int(factor_y), int(factor_x)


def _shape(schedule: Schedule, block: SBlockRV) -> tuple[int, ...]:
    return tuple(int(v.dom.extent) for v in schedule.get(block).iter_vars)

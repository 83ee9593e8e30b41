"""Weights that the device makes of other weights: a part of one weight, plus products of small factors.

    W = w + up @ down        a Control-LoRA's; w is the UNet's

A param holds the weights of one or more layers, joined along their outputs, and perhaps permuted so that the outputs
come last. So do w and the products: the sum is one elementwise operation over the whole param. Neighbouring layers of
one width are one product of P matrices, with R the rank, M the inputs and N the outputs of a layer:

    outputs last     [P, M, N] = down' [P, M, R] @ up' [P, R, N], then [M, P N]
    outputs first    [P, N, M] = up [P, N, R] @ down [P, R, M], then [P N, M]
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.capture.param import Param

SURPLUS_BITS = 13  # that float32's fraction has more than float16's
_SWAPPED = (0, 2, 1)


@dataclass(frozen=True)
class Slice:
    """Outputs `start` to before `stop` of one of the weights that a merge begins with."""

    base: int
    start: int
    stop: int


@dataclass(frozen=True)
class Factors:
    """The products of `layers` layers of one width, whose factors lie one after another in two params."""

    layers: int  # P
    outputs: int  # N
    rank: int  # R


@dataclass(frozen=True)
class MergeShape:
    """Everything that decides a merge's function: merges of equal shapes share it.

    Attributes:
        result: the param's shape.
        outputs_last: whether the last axis is the layers' outputs; else the first is.
        bases: shapes of the weights to begin with, in the layout of the result.
        slices: their outputs that are joined.
        factors: the products that are joined.
    """

    result: tuple[int, ...]
    outputs_last: bool
    bases: tuple[tuple[int, ...], ...]
    slices: tuple[Slice, ...]
    factors: tuple[Factors, ...]

    @property
    def function(self) -> str:
        """The name of its function, the same in every build."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return f"merge_{'x'.join(map(str, self.result))}_{digest}"

    @property
    def inputs(self) -> int:
        """M, the columns of a layer's weight as a matrix: input channels, times the kernel's size."""
        return math.prod(self.result[:-1] if self.outputs_last else self.result[1:])

    @property
    def arguments(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the function's arguments: the bases, then a left and a right factor for each product."""
        shapes = list(self.bases)
        for factors in self.factors:
            rows, columns = (self.inputs, factors.outputs) if self.outputs_last else (factors.outputs, self.inputs)
            shapes += [(factors.layers, rows, factors.rank), (factors.layers, factors.rank, columns)]
        return tuple(shapes)

    @property
    def bindings(self) -> int:
        """How many tensors the kernel that adds everything up binds."""
        return len(self.slices) + len(self.factors) + 1


@dataclass(frozen=True)
class Merge:
    """A param that the device makes: its function's shape, and the params that the function reads, in order."""

    shape: MergeShape
    sources: tuple[Param, ...]


def factor_params(ups: Sequence[str], downs: Sequence[str], outputs_last: bool) -> tuple[Param, Param]:
    """Return the left and the right factor of a product, from the names of tensors [1, N, R] and [1, R, M]."""
    up, down = Param.joined(ups), Param.joined(downs)
    return (down.permuted(_SWAPPED), up.permuted(_SWAPPED)) if outputs_last else (up, down)


def merge_module(shapes: Iterable[MergeShape], dtype: str) -> tvm.IRModule:
    """Build the functions of these merges: `shape.arguments` -> the param, all of `dtype`.

    Products and sum are float32, and the result is rounded to float16 once, as a build rounds what it merges itself. A
    float32 library rounds to float16's precision too.
    """
    builder = relax.BlockBuilder()
    for shape in dict.fromkeys(shapes):
        _emit_merge(builder, shape, dtype)
    return builder.finalize()


def _emit_merge(builder: relax.BlockBuilder, shape: MergeShape, dtype: str) -> None:
    arguments = [relax.Var(f"w{i}", relax.TensorType(sizes, dtype)) for i, sizes in enumerate(shape.arguments)]
    bases, factors = arguments[: len(shape.bases)], arguments[len(shape.bases) :]
    axis = 1 if shape.outputs_last else 0
    with builder.function(shape.function, arguments, {"global_symbol": shape.function}):
        with builder.dataflow():
            emit = builder.emit
            slices = [_sliced(builder, bases[part.base], shape, part) for part in shape.slices]
            base = emit(relax.op.astype(_joined(builder, slices, axis), "float32"))
            pairs = zip(factors[::2], factors[1::2], strict=True)
            products = [_product(builder, left, right, shape.outputs_last) for left, right in pairs]
            merged = emit(relax.op.add(base, _joined(builder, products, axis)))
            half = dtype == "float16"
            rounded = emit(relax.op.astype(merged, dtype)) if half else builder.emit_te(round_to_float16, merged)
            result = builder.emit_output(_reshaped(rounded, shape.result))
        builder.emit_func_output(result)


def round_to_float16(value: te.Tensor) -> te.Tensor:
    """Round float32 to the nearest number of float16's precision, halves to even, where a device lacks float16.

    It rounds the bits. Sums of floats that should do it (Dekker's splitting) do nothing where a compiler contracts them
    to fused multiply-adds.
    """

    def rounded(*index: tirx.Var) -> tirx.Expr:
        bits = tirx.reinterpret("uint32", value(*index))
        surplus = tirx.const(SURPLUS_BITS, "uint32")
        is_odd = (bits >> surplus) & tirx.const(1, "uint32")
        nearest = bits + tirx.const(2 ** (SURPLUS_BITS - 1) - 1, "uint32") + is_odd
        return tirx.reinterpret("float32", (nearest >> surplus) << surplus)

    return te.compute(value.shape, rounded, name="round_to_float16")


def _sliced(builder: relax.BlockBuilder, base: relax.Var, shape: MergeShape, part: Slice) -> relax.Var:
    """Return some outputs of a base, as a matrix."""
    sizes = shape.bases[part.base]
    outputs = sizes[-1] if shape.outputs_last else sizes[0]
    flat = builder.emit(_reshaped(base, (shape.inputs, outputs) if shape.outputs_last else (outputs, shape.inputs)))
    if (part.start, part.stop) == (0, outputs):
        return flat
    axis = 1 if shape.outputs_last else 0
    return builder.emit(relax.op.strided_slice(flat, axes=[axis], begin=[part.start], end=[part.stop]))


def _product(builder: relax.BlockBuilder, left: relax.Var, right: relax.Var, outputs_last: bool) -> relax.Var:
    """Multiply the factors of some layers, and join the products along the layers' outputs, as a matrix."""
    emit = builder.emit
    (layers, rows, rank), (_, _, columns) = ([int(size) for size in factor.ty.shape] for factor in (left, right))
    if layers == 1:  # two axes: then the sum is computed where the product is
        left, right = emit(relax.op.reshape(left, (rows, rank))), emit(relax.op.reshape(right, (rank, columns)))
    left, right = (emit(relax.op.astype(factor, "float32")) for factor in (left, right))  # so that all sums are float32
    product = emit(relax.op.matmul(left, right))
    if layers == 1:
        return product
    if not outputs_last:
        return emit(relax.op.reshape(product, (layers * rows, columns)))
    product = emit(relax.op.permute_dims(product, [1, 0, 2]))
    return emit(relax.op.reshape(product, (rows, layers * columns)))


def _joined(builder: relax.BlockBuilder, parts: Sequence[relax.Var], axis: int) -> relax.Var:
    return parts[0] if len(parts) == 1 else builder.emit(relax.op.concat(list(parts), axis))


def _reshaped(value: relax.Var, sizes: Sequence[int]) -> relax.Expr:
    same = tuple(int(size) for size in value.ty.shape) == tuple(sizes)
    return value if same else relax.op.reshape(value, tuple(sizes))

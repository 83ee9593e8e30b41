"""Describe an attention in Relax, and find the tensors that hold its operands."""

import math
from dataclasses import dataclass

import tvm
from tvm import relax

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.passes.matching import Lookup, bound_to, is_call, shape_of


@dataclass(frozen=True)
class Columns:
    """The columns of a tensor [B, S, W] from `first` on."""

    tensor: relax.Expr
    first: int


def rows_of(heads: relax.Expr, lookup: Lookup) -> relax.Expr | None:
    """Return the [B, S, H D] that `heads` [B, S, H, D] was reshaped from, if it was."""
    batch, tokens, *sizes = shape_of(heads)
    bound = bound_to(heads, lookup)
    if is_call(bound, "relax.reshape") and shape_of(bound.args[0]) == (batch, tokens, math.prod(sizes)):
        return bound.args[0]
    return None


def columns_of(rows: relax.Expr, lookup: Lookup) -> Columns | None:
    """Return the tensor that `rows` [B, S, C] are some columns of."""
    bound = bound_to(rows, lookup)
    if not is_call(bound, "relax.strided_slice"):
        return None
    tensor, axes, begin, _, *strides = bound.args
    if [int(axis) for axis in axes] != [2] or any(int(step) != 1 for steps in strides for step in steps):
        return None
    return Columns(tensor, int(begin[0]))


def describe(call: relax.Call) -> Attention | None:
    """Describe the attention of a call; None if a size is unknown or it has a sliding window."""
    shapes = [_static_shape(argument) for argument in call.args]
    if None in shapes or call.attrs.window_size is not None:
        return None
    query, key, value, *bias = shapes
    assert query is not None and key is not None
    if value != key:  # heads of another size for the values
        return None
    batch, queries, heads, head_size = query
    scale = call.attrs.scale
    return Attention(
        batch=batch,
        queries=queries,
        keys=key[1],
        heads=heads,
        head_size=head_size,
        dtype=str(call.args[0].ty.dtype),
        scale=head_size**-0.5 if scale is None else float(scale),
        bias_shape=bias[0] if bias else None,
        causal=call.attrs.causal_mask,
    )


def _static_shape(tensor: relax.Expr) -> tuple[int, ...] | None:
    shape = tensor.ty.shape
    if shape is None or not all(isinstance(size, tvm.tirx.IntImm) for size in shape):
        return None
    return tuple(int(size) for size in shape)

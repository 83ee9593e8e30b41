"""Questions that passes ask about Relax expressions."""

from collections.abc import Callable
from typing import TypeGuard

import tvm
from tvm import relax

Lookup = Callable[[relax.Var], relax.Expr | None]  # a mutator's lookup_binding


def is_call(expr: relax.Expr | None, op: str) -> TypeGuard[relax.Call]:
    """Return whether `expr` is a call of the Relax op of this name, such as `relax.nn.conv2d`."""
    return isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get(op)


def bound_to(expr: relax.Expr, lookup: Lookup) -> relax.Expr | None:
    """Return the value that `expr` is bound to if it is a variable, else None."""
    return lookup(expr) if isinstance(expr, relax.Var) else None


def axes_of(permute: relax.Call) -> list[int]:
    """Return the permutation of a permute_dims, with axes counted from 0."""
    rank = len(permute.args[0].ty.shape)
    if permute.attrs.axes is None:
        return list(range(rank))[::-1]
    return [int(axis) % rank for axis in permute.attrs.axes]


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Return the shape of a tensor, which must be static."""
    return tuple(int(size) for size in expr.ty.shape)


def readers(function: relax.Function) -> dict[relax.Var, list[relax.Expr]]:
    """Return the readers of each variable of a dataflow block that nothing outside the block reads."""
    found: dict[relax.Var, list[relax.Expr]] = {}
    for block in function.body.blocks:
        if isinstance(block, relax.DataflowBlock):
            value_of = {binding.var: binding.value for binding in block.bindings}
            for variable, users in relax.analysis.udchain(block).items():
                if isinstance(variable, relax.DataflowVar):
                    found[variable] = [value_of[user] for user in users]
    return found

"""Add up what all threads of a workgroup share in the index of a packed word before what is a thread's own.

Before: b1[n * 1280 + (threadIdx.z >> 1) * 320 + blockIdx.y * 16 + threadIdx.x]
After:  b1[n * 1280 + blockIdx.y * 16 + ((threadIdx.z >> 1) * 320 + threadIdx.x)]

A GPU adds shared terms once for a wave, in scalar instructions beside the vector ones, and a thread's own ones once
before the loop: what is left is one addition a load. In TVM's order each term behind the first own one is an addition
for each load and thread, and compilers do not change the order.

Of packed weights only, of which a vector of four is two loads of words in 6 bits. Predicted for a Radeon Pro W7900, the
order of all indices makes a product in float16 1 to 3 % faster, but takes 1 % more text, and text is start-up time.

Runs on device functions for WGSL before common subexpressions are eliminated.
"""

import logging
from collections.abc import Iterator

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad

from mlc_controlnet.kernels.decoding import WORDS_DTYPE

log = logging.getLogger(__name__)

THREAD = "threadIdx"


@tvm.transform.module_pass(opt_level=0, name="AddSharedTermsFirst")
class AddSharedTermsFirst:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                indices = _Indices(function)
                mod[global_var] = tvm_ffi.structural_map(function, (TensorLoad, indices.load))
                fired += indices.fired
        log.info("%d indices add shared terms first", fired)
        return mod


class _Indices:
    """The indices of one function.

    Attributes:
        own: variables whose values differ between the threads of a workgroup.
    """

    def __init__(self, function: tirx.PrimFunc) -> None:
        self.fired = 0
        self.own: set[tirx.Var] = set()
        callbacks = ((tirx.AttrStmt, self._attribute), (tirx.Bind, self._bound))
        tvm_ffi.structural_walk(function.body, callbacks, order="pre")

    def _attribute(self, statement: tirx.AttrStmt) -> None:
        axis = statement.node
        if isinstance(axis, tirx.IterVar) and str(axis.thread_tag).startswith(THREAD):
            self.own.add(axis.var)

    def _bound(self, statement: tirx.Bind) -> None:
        if self._is_own(statement.value):
            self.own.add(statement.var)

    def _is_own(self, expr: tvm.ir.Expr) -> bool:
        """Return whether threads have values of their own: what is read from memory counts as such."""
        found: list[tvm.ir.Expr] = []
        callbacks = (
            (tirx.Var, lambda variable: found.append(variable) if variable in self.own else None),
            (TensorLoad, found.append),
        )
        tvm_ffi.structural_walk(expr, callbacks, order="pre")
        return bool(found)

    def load(self, node: TensorLoad) -> TensorLoad:
        """Return the load of a word with shared terms first; any other, or with nothing to sort, as it is."""
        if str(node.source.dtype) != WORDS_DTYPE:
            return node
        (index,) = node.indices
        parts: dict[bool, list[tuple[int, tirx.Expr]]] = {False: [], True: []}
        for sign, term in _terms(index, 1):
            parts[self._is_own(term)].append((sign, term))
        if not all(parts.values()):
            return node
        self.fired += 1
        return tirx.BufferLoad(node.source, [_sum(parts[False]) + _sum(parts[True])])


def _terms(expr: tirx.Expr, sign: int) -> Iterator[tuple[int, tirx.Expr]]:
    """Yield the terms of a sum, each with its sign."""
    if isinstance(expr, tirx.Add | tirx.Sub):
        yield from _terms(expr.a, sign)
        yield from _terms(expr.b, sign if isinstance(expr, tirx.Add) else -sign)
    else:
        yield sign, expr


def _sum(terms: list[tuple[int, tirx.Expr]]) -> tirx.Expr:
    """Add terms up, those that are taken away last."""
    (first, total), *rest = sorted(terms, key=lambda term: -term[0])
    if first < 0:
        total = tirx.const(0, str(total.ty)) - total
    for sign, term in rest:
        total = total + term if sign > 0 else total - term
    return total

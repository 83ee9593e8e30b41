"""Cancel a permute_dims whose input is a permute_dims that it undoes.

Before: y = permute_dims(x, [0, 2, 1, 3]); z = permute_dims(y, [0, 2, 1, 3])
After:  z = x

torch splits heads as [B, heads, S, d] and Relax's attention wants [B, S, heads, d]: every attention arrives with four
pairs of transposes that say nothing. Each that stays is a round trip of its tensor.
"""

import logging

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.matching import axes_of, is_call
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="CancelPermutes")
class CancelPermutes:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        canceller = _Canceller(mod)
        rewritten = rewrite(mod, canceller)
        log.info("cancelled %d pairs of permute_dims", canceller.fired)
        return rewritten


@mutator
class _Canceller(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.fired = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "relax.permute_dims") or not isinstance(call.args[0], relax.Var):
            return call
        bound = self.lookup_binding(call.args[0])
        if not is_call(bound, "relax.permute_dims"):
            return call
        outer, inner = axes_of(call), axes_of(bound)
        if [inner[axis] for axis in outer] != sorted(outer):
            return call
        self.fired += 1
        return bound.args[0]

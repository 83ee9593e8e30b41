"""Compute a linear layer and the gate that halves its output in one kernel.

Before: y = add(astype(matmul(x, w)), b); (a, g) = split(y, 2); z = multiply(a, gelu(g))
After:  z = call_tir(gated_matmul, (x, reshape(w), reshape(b)))

The feed-forward layers of Stable Diffusion's transformers are GEGLU (arXiv 2002.05202, section 2). Apart, the linear
layer writes and the gate reads back a tensor eight times as wide as the layer's input: 21 MB at [4096, 2560] float16,
the largest of the UNet and of the ControlNet. The products are not rounded before they are gated.
"""

import logging
import math

import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.kernels.error_function import erf
from mlc_controlnet.kernels.matmul_gpu import choose_tile
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.passes.matching import bound_to, is_call, shape_of
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseGatedMatmul")
class UseGatedMatmul:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        replacer = _Replacer(mod)
        rewritten = rewrite(mod, replacer)
        log.info("replaced %d gated linear layers", replacer.fired)
        return rewritten


@mutator
class _Replacer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.fired = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        found = self._gated(call)
        if found is None:
            return call
        x, weight, bias = found
        depth, width = shape_of(weight)
        self.fired += 1
        weights = self.builder_.emit(relax.op.reshape(weight, (depth, 2, width // 2)))
        biases = self.builder_.emit(relax.op.reshape(bias, (2, width // 2)))
        return self.builder_.call_te(_gated_matmul, x, weights, biases, primfunc_name_hint="gated_matmul")

    def _gated(self, call: relax.Call) -> tuple[relax.Expr, relax.Expr, relax.Expr] | None:
        """x [B, M, K], weight [K, 2 N] and bias [2 N], where `call` is the gate of their linear layer."""
        if not is_call(call, "relax.multiply"):
            return None
        value, gelu = (self._bound(argument) for argument in call.args)
        gate = self._bound(gelu.args[0]) if is_call(gelu, "relax.nn.gelu") else None
        if not isinstance(value, relax.TupleGetItem) or not isinstance(gate, relax.TupleGetItem):
            return None
        split = self._bound(value.tuple_value)
        if (value.index, gate.index) != (0, 1) or not value.tuple_value.same_as(gate.tuple_value):
            return None
        if not is_call(split, "relax.split") or int(split.attrs.axis) not in (-1, 2) or len(call.ty.shape) != 3:
            return None
        add = self._bound(split.args[0])
        if not is_call(add, "relax.add") or len(add.args[1].ty.shape) != 1:
            return None
        matmul = self._bound(add.args[0])
        if is_call(matmul, "relax.astype"):
            matmul = self._bound(matmul.args[0])
        if not is_call(matmul, "relax.matmul") or len(matmul.args[1].ty.shape) != 2:
            return None
        x, weight = matmul.args
        batch, rows, columns = shape_of(call)
        # No other schedule takes a gated product.
        if shape_of(weight)[0] % LANES or choose_tile(batch, rows, columns, gated=True) is None:
            return None
        return x, weight, add.args[1]

    def _bound(self, expr: relax.Expr) -> relax.Expr | None:
        return bound_to(expr, self.lookup_binding)


def _gated_matmul(x: te.Tensor, weights: te.Tensor, biases: te.Tensor) -> te.Tensor:
    """[B, M, K], [K, 2, N] and [2, N] -> [B, M, N]: (x w0 + b0) * gelu(x w1 + b1), in float32 until the end."""
    batch, rows, depth = x.shape
    _, _, columns = weights.shape
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (batch, rows, 2, columns),
        lambda b, m, g, n: te.sum(x[b, m, k].astype("float32") * weights[k, g, n].astype("float32"), axis=k),
        "gated_matmul",
    )

    def gated(b: tirx.Var, m: tirx.Var, n: tirx.Var) -> tirx.Expr:
        value, gate = (product[b, m, g, n] + biases[g, n].astype("float32") for g in (0, 1))
        held = tirx.Var("gate", "float32")
        gelu = held * tirx.const(0.5, "float32") * (1 + erf(held * tirx.const(math.sqrt(0.5), "float32")))
        return tirx.Let(held, gate, (value * gelu).astype(x.dtype))

    return te.compute((batch, rows, columns), gated, "gate")

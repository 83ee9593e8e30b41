"""Compute a linear layer and the gate that halves its output in one kernel.

Before: y = add(astype(matmul(x, w)), b); (a, g) = split(y, 2); z = multiply(a, gelu(g))
After:  z = call_tir(gated_matmul, (x, reshape(w), reshape(b)))

The feed-forward layers of Stable Diffusion's transformers are GEGLU (arXiv 2002.05202, section 2). As two kernels, the
linear layer writes and the gate reads a tensor eight times as wide as the layer's input, the largest of the UNet and of
the ControlNet. The products are not rounded before they are gated.
"""

import logging
import math

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.kernels.error_function import erf
from mlc_controlnet.kernels.matmul_tile import has_tile
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseGatedMatmul")
class UseGatedMatmul:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _replace)
        log.info("replaced %d gated linear layers", fired)
        return rewritten


def _replace(call: relax.Call, site: Site) -> relax.Expr | None:
    found = _gated(call, site)
    if found is None:
        return None
    x, weight, bias = found
    depth, width = shape_of(weight)
    weights = site.emit(relax.op.reshape(weight, (depth, 2, width // 2)))
    biases = site.emit(relax.op.reshape(bias, (2, width // 2)))
    return site.builder.call_te(_gated_matmul, x, weights, biases, primfunc_name_hint="gated_matmul")


def _gated(call: relax.Call, site: Site) -> tuple[relax.Expr, relax.Expr, relax.Expr] | None:
    """Find x [B, M, K], weight [K, 2 N] and bias [2 N] of the linear layer whose gate `call` is."""
    if not is_call(call, "relax.multiply"):
        return None
    value, gelu = (site.bound_to(argument) for argument in call.args)
    gate = site.bound_to(gelu.args[0]) if is_call(gelu, "relax.nn.gelu") else None
    if not isinstance(value, relax.TupleGetItem) or not isinstance(gate, relax.TupleGetItem):
        return None
    split = site.bound_to(value.tuple_value)
    if (value.index, gate.index) != (0, 1) or not value.tuple_value.same_as(gate.tuple_value):
        return None
    if not is_call(split, "relax.split") or int(split.attrs.axis) not in (-1, 2) or len(call.ty.shape) != 3:
        return None
    add = site.bound_to(split.args[0])
    if not is_call(add, "relax.add") or len(add.args[1].ty.shape) != 1:
        return None
    matmul = site.bound_to(add.args[0])
    if is_call(matmul, "relax.astype"):
        matmul = site.bound_to(matmul.args[0])
    if not is_call(matmul, "relax.matmul") or len(matmul.args[1].ty.shape) != 2:
        return None
    x, weight = matmul.args
    _, rows, columns = shape_of(call)
    # No other schedule takes a gated product.
    if shape_of(weight)[0] % LANES or not has_tile(rows, columns):
        return None
    return x, weight, add.args[1]


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

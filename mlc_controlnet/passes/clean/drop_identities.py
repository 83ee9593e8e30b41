"""Drop operations that return their operand.

Before: y = divide(x, 1.0); z = astype(y, "float32")                                                # x is float32
After:  x

diffusers divides residuals by an `output_scale_factor` and attentions by a `rescale_output_factor`, which are 1 in all
current models, and it casts for models of mixed precision.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="DropIdentities")
class DropIdentities:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _drop)
        log.info("dropped %d identities", fired)
        return rewritten


def _drop(call: relax.Call, _site: Site) -> relax.Expr | None:
    return call.args[0] if _is_identity(call) else None


def _is_identity(call: relax.Call) -> bool:
    if not isinstance(call.op, tvm.ir.Op):
        return False
    if call.op.name == "relax.astype":
        return str(call.args[0].ty.dtype) == str(call.attrs.dtype)
    return call.op.name in ("relax.divide", "relax.multiply") and _is_one(call.args[1])


def _is_one(expr: relax.Expr) -> bool:
    """Return whether the expression is the scalar 1; a scalar does not change the shape of the other operand."""
    return isinstance(expr, tvm.ir.GenericConst) and not expr.value.shape and float(expr.value.numpy()) == 1.0

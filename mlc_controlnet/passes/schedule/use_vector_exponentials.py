"""Compute exponentials and the error function by vector arithmetic of the processor.

Before: exp(x), sigmoid(x), erf(x)
After:  2^(x log2 e) and 1 / (1 + 2^(-x log2 e)) with the power as a polynomial times an exponent's bits, and a ratio of
        polynomials

Fires on float32 in any PrimFunc. Only processors need it: a GPU has an instruction. LLVM calls libm once per lane, so
that a convolution with silu spends more than half of its time in the silu.
"""

import logging

import tvm
import tvm_ffi
from tvm import tirx

from mlc_controlnet.kernels.error_function import erf
from mlc_controlnet.kernels.exponential import LOG2_E, exp2

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseVectorExponentials")
class UseVectorExponentials:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        fired = 0

        def replace(call: tvm.ir.Call) -> tvm.ir.Expr:
            nonlocal fired
            if call.op not in REPLACEMENTS or str(call.ty.dtype) != "float32":
                return call
            fired += 1
            return REPLACEMENTS[call.op](call.args[0])

        mod = mod.clone()
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                mod[global_var] = tvm_ffi.structural_map(function, (tvm.ir.Call, replace))
        log.info("replaced %d exponentials", fired)
        return mod


def _exp(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return exp2(x * tirx.const(LOG2_E, "float32"), lanes=1)


def _sigmoid(x: tvm.ir.Expr) -> tvm.ir.Expr:
    one = tirx.const(1.0, "float32")
    return one / (one + exp2(x * tirx.const(-LOG2_E, "float32"), lanes=1))


REPLACEMENTS = {
    tvm.ir.Op.get("tirx.exp"): _exp,
    tvm.ir.Op.get("tirx.sigmoid"): _sigmoid,
    tvm.ir.Op.get("tirx.erf"): erf,
}

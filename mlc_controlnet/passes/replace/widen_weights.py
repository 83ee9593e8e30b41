"""Call a kernel of ours where a float16 weight is widened, so that later passes know what it is.

Before: w16 = params[3]; w = astype(w16, "float32")
After:  w16 = params[3]; w = call_tir(widen, (w16,))

`FuseDecoding` makes it a part of the kernel that reads the weight.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.quantize.decoding_calls import emit_widening
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="WidenWeights")
class WidenWeights:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _replace)
        log.info("%d weights are widened", fired)
        return rewritten


def _replace(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.astype") or not isinstance(site.bound_to(call.args[0]), relax.TupleGetItem):
        return None
    if (str(call.args[0].ty.dtype), str(call.ty.dtype)) != ("float16", "float32"):
        return None
    return emit_widening(site.builder, call.args[0])

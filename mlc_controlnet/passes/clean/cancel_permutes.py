"""Cancel a permute_dims whose input is a permute_dims that it undoes.

Before: y = permute_dims(x, [0, 2, 1, 3]); z = permute_dims(y, [0, 2, 1, 3])
After:  z = x

torch splits heads as [B, heads, S, d] and Relax's attention wants [B, S, heads, d], so every attention arrives with
four pairs of transposes that do nothing. Each pair costs a round trip of its tensor.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.passes.matching import axes_of, is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="CancelPermutes")
class CancelPermutes:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _cancel)
        log.info("cancelled %d pairs of permute_dims", fired)
        return rewritten


def _cancel(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.permute_dims"):
        return None
    inner = site.bound_to(call.args[0])
    if not is_call(inner, "relax.permute_dims"):
        return None
    first, second = axes_of(inner), axes_of(call)
    return inner.args[0] if [first[axis] for axis in second] == sorted(second) else None

"""Decode a weight in the shape that its reader wants.

Before: w = call_tir(decode, (words, table)); v = reshape(w, [K, 2, N])
After:  v = call_tir(decode, (words, table))                              # [K, 2, N]

Words and table say nothing of a shape. The last axes of the new shape must be the columns of the packed matrix.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.kernels.decoding import has_columns_of
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.quantize.decoding_calls import decoding, emit_decoding
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ReshapeDecoding")
class ReshapeDecoding:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _replace)
        log.info("%d weights are decoded in another shape", fired)
        return rewritten


def _replace(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.reshape"):
        return None
    found = decoding(site.bound_to(call.args[0]), site.builder.get())
    if found is None or not has_columns_of(found.scheme, shape_of(call)):
        return None
    words, table = found.operands
    return emit_decoding(site.builder, words, table, found.scheme, shape_of(call))

"""Decode a weight in the kernel that reads it.

Before: w = call_tir(decode, (words, table)); y = call_tir(matmul, (x, w))
After:  y = call_tir(fused_decode_matmul, (x, words, table))

FuseOps fuses what follows a convolution or matrix product, and not what comes before it. So this pass makes a function
of both calls, which TVM's FuseTIR turns into one PrimFunc. It keeps the reader's mark for FuseOps, which fuses later
what follows as if nothing had been decoded. A weight of several readers is decoded by each.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.kernels.marks import mark_pattern, pattern_of
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.quantize.decoding_calls import decoding
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="FuseDecoding")
class FuseDecoding:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        patterns: dict[str, int] = {}
        rewritten, fired = rewrite_calls(mod, lambda call, site: _fuse(call, site, patterns))
        log.info("%d calls decode what they read", fired)
        if not fired:
            return mod
        fused = relax.transform.FuseTIR()(rewritten)
        for name, pattern in patterns.items():
            fused[name] = mark_pattern(fused[name], pattern)
        return fused


def _fuse(call: relax.Call, site: Site, patterns: dict[str, int]) -> relax.Expr | None:
    if not is_call(call, "relax.call_tir"):
        return None
    module = site.builder.get()
    reader, arguments = call.args[0], list(call.args[1])
    decodings = [decoding(site.bound_to(argument), module) for argument in arguments]
    if not any(decodings):
        return None
    outer: list[relax.Expr] = []
    inner: list[relax.Var] = []

    def parameter(argument: relax.Expr) -> relax.Var:
        outer.append(argument)
        inner.append(relax.Var(f"p{len(inner)}", argument.ty))
        return inner[-1]

    builder = relax.BlockBuilder()
    own = [
        [parameter(operand) for operand in ([argument] if found is None else found.operands)]
        for argument, found in zip(arguments, decodings, strict=True)
    ]
    with builder.function("main", inner, {"Primitive": True}, private=True):
        with builder.dataflow():
            given = [
                group[0] if found is None else builder.emit(relax.call_tir(found.call.args[0], group, found.call.ty))
                for group, found in zip(own, decodings, strict=True)
            ]
            result = builder.emit_output(relax.call_tir(reader, given, call.ty))
        builder.emit_func_output(result)
    fused = builder.finalize()["main"]
    function = site.builder.add_func(fused, f"fused_decode_{reader.name_hint}")
    patterns[function.name_hint] = pattern_of(module[reader])
    return relax.Call(function, outer)

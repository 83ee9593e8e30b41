"""Decode or widen a weight in the kernel that reads it.

Before: w = call_tir(decode, (words, table)); y = call_tir(matmul, (x, w))
After:  y = call_tir(fused_decode_matmul, (x, words, table))

FuseOps fuses what follows a convolution or matrix product, and not what comes before it. TVM's FuseTIR makes one
PrimFunc of both calls, in a module of their own: run over the whole module it would turn outputs of blocks, which
`SplitLargePlanes` made, into inner variables. The PrimFunc keeps the reader's mark for FuseOps, which fuses later what
follows as if nothing had been decoded. A weight of several readers is decoded by each.
"""

import logging
from collections.abc import Sequence

import tvm
from tvm import relax, tirx

from mlc_controlnet.kernels.marks import mark_pattern, pattern_of
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.quantize.decoding_calls import computed_weight
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="FuseDecoding")
class FuseDecoding:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _Rule())
        log.info("%d calls decode or widen what they read", fired)
        return rewritten


class _Rule:
    def __init__(self) -> None:
        self.fused: dict[tuple[tvm.ir.GlobalVar | None, ...], tvm.ir.GlobalVar] = {}  # a reader and its decodings

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.call_tir"):
            return None
        module = site.builder.get()
        decodings = [computed_weight(site.bound_to(argument), module) for argument in call.args[1]]
        if all(found is None for found in decodings):
            return None
        key = (call.args[0], *(None if found is None else found.args[0] for found in decodings))
        if key not in self.fused:
            fused = mark_pattern(_fuse(call, decodings, module), pattern_of(module[call.args[0]]))
            self.fused[key] = site.builder.add_func(fused, f"fused_decode_{call.args[0].name_hint}")
        operands = zip(call.args[1], decodings, strict=True)
        return relax.call_tir(self.fused[key], [x for own in operands for x in _operands(*own)], call.ty)


def _operands(argument: relax.Expr, found: relax.Call | None) -> list[relax.Expr]:
    return [argument] if found is None else list(found.args[1])


def _fuse(call: relax.Call, decodings: Sequence[relax.Call | None], module: tvm.IRModule) -> tirx.PrimFunc:
    """Return what `call` does with its operands, weights as they are in memory."""
    called = [call.args[0], *(found.args[0] for found in decodings if found is not None)]
    builder = relax.BlockBuilder(tvm.IRModule({function: module[function] for function in called}))
    params = [
        [relax.Var(f"p{index}_{part}", x.ty) for part, x in enumerate(_operands(argument, found))]
        for index, (argument, found) in enumerate(zip(call.args[1], decodings, strict=True))
    ]
    flat = [param for own in params for param in own]
    with builder.function("fused", flat, {"Primitive": True}, private=True):
        with builder.dataflow():
            given = [
                own[0] if found is None else builder.emit(relax.call_tir(found.args[0], own, found.ty))
                for own, found in zip(params, decodings, strict=True)
            ]
            result = builder.emit_output(relax.call_tir(call.args[0], given, call.ty))
        builder.emit_func_output(result)
    arguments = [relax.Var(param.name, param.ty) for param in flat]
    with builder.function("main", arguments):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(builder.get().get_global_var("fused"), arguments))
        builder.emit_func_output(result)
    return relax.transform.FuseTIR()(builder.get())["fused"]

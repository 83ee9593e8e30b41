"""Replace layer norm by the layer norm kernel, on GPUs.

Before: y = nn.layer_norm(x, gamma, beta, axes=[-1])
After:  y = call_tir(layer_norm, (x, gamma, beta))

Fires on static shapes, float16 or float32, with scale and shift, over the last axis. The default schedule reads every
row three times and waits for fourteen barriers.
"""

import logging

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.kernels.layer_norm_gpu import LayerNorm, layer_norm
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseLayerNorm")
class UseLayerNorm:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        replacer = _Replacer(mod)
        rewritten = rewrite(mod, replacer)
        log.info("replaced %d layer norms by %d kernels", replacer.fired, len(replacer.kernels))
        return rewritten


@mutator
class _Replacer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.kernels: dict[LayerNorm, tvm.ir.GlobalVar] = {}
        self.fired = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        norm = _describe(call)
        if norm is None:
            return call
        self.fired += 1
        if norm not in self.kernels:
            self.kernels[norm] = self.builder_.add_func(layer_norm(norm), "layer_norm")
        return relax.call_tir(self.kernels[norm], list(call.args), call.ty)


def _describe(call: relax.Call) -> LayerNorm | None:
    """The layer norm that `call` is, None for anything else or where there is no kernel."""
    if not is_call(call, "relax.nn.layer_norm"):
        return None
    attrs, shape = call.attrs, call.ty.shape
    if not all(isinstance(size, tvm.tirx.IntImm) for size in shape) or not (attrs.center and attrs.scale):
        return None
    if len(shape) < 2 or [int(axis) % len(shape) for axis in attrs.axes] != [len(shape) - 1]:
        return None
    norm = LayerNorm(tuple(int(size) for size in shape), float(attrs.epsilon), str(call.ty.dtype))
    return norm if norm.is_supported() else None

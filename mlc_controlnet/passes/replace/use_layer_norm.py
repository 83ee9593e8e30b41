"""Replace layer norm by the layer norm kernel.

Before: y = nn.layer_norm(x, gamma, beta, axes=[-1])
After:  y = call_tir(layer_norm, (x, gamma, beta))

Fires on static shapes, float16 or float32, with scale and shift, over the last axis.
"""

import logging

import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.layer_norm import is_supported, layer_norm
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseLayerNorm")
class UseLayerNorm:
    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        kernels: dict[LayerNorm, tvm.ir.GlobalVar] = {}

        def replace(call: relax.Call, site: Site) -> relax.Expr | None:
            norm = _describe(call)
            if norm is None or not is_supported(norm, self.target):
                return None
            if norm not in kernels:
                kernels[norm] = site.builder.add_func(layer_norm(norm, self.target), "layer_norm")
            return relax.call_tir(kernels[norm], list(call.args), call.ty)

        rewritten, fired = rewrite_calls(mod, replace)
        log.info("replaced %d layer norms by %d kernels", fired, len(kernels))
        return rewritten


def _describe(call: relax.Call) -> LayerNorm | None:
    """Describe the layer norm that `call` computes; None for anything else."""
    if not is_call(call, "relax.nn.layer_norm"):
        return None
    attrs, shape = call.attrs, call.ty.shape
    if not all(isinstance(size, tvm.tirx.IntImm) for size in shape) or not (attrs.center and attrs.scale):
        return None
    if len(shape) < 2 or [int(axis) % len(shape) for axis in attrs.axes] != [len(shape) - 1]:
        return None
    return LayerNorm(tuple(int(size) for size in shape), float(attrs.epsilon), str(call.ty.dtype))

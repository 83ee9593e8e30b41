"""Compute convolutions with weights in the layout of the params.

Before: y = nn.conv2d(x, permute_dims(w, axes=[3, 0, 1, 2]))
After:  y = call_tir(conv2d, (x, w))                                           # w [C, kh, kw, N]

The schedules know only this form. TVM computes convolutions with groups or dilation.
"""

import functools
import logging

import tvm
from tvm import relax, te

from mlc_controlnet.kernels.convolution import convolve
from mlc_controlnet.passes.clean.lay_out_weights import is_direct, laid_out
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseDirectConv2d")
class UseDirectConv2d:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _replace)
        log.info("replaced %d convolutions", fired)
        return rewritten


def _replace(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.nn.conv2d") or not is_direct(call):
        return None
    attrs = call.attrs
    convolution = functools.partial(_conv2d, tuple(attrs.strides), tuple(attrs.padding), str(call.ty.dtype))
    weight = site.builder.normalize(laid_out(call.args[1], site.lookup))
    return site.builder.call_te(convolution, call.args[0], weight, primfunc_name_hint="conv2d")


def _conv2d(
    strides: tuple[int, int], padding: tuple[int, int, int, int], out_dtype: str, x: te.Tensor, weight: te.Tensor
) -> te.Tensor:
    """[B, C, H, W] and [C, kh, kw, N] -> [B, N, H', W']."""
    batch, channels, height, width = (int(extent) for extent in x.shape)
    size = batch, channels, height, width
    return convolve(lambda b, c, i, j: x[b, c, i, j], size, weight, strides, padding, (x.dtype, out_dtype))

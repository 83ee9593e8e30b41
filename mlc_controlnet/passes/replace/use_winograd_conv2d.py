"""Compute 3x3 convolutions by Winograd's F(4x4, 3x3) where that is faster on a processor.

Before: y = nn.conv2d(x, permute_dims(w, axes=[3, 0, 1, 2]), padding=[1, 1, 1, 1])
After:  y = call_tir(winograd_conv2d, (x, w))                                  # w [C, 3, 3, N]

Fires in float32, without strides. It takes 0.35 to 0.5 of a direct convolution's time with AVX-512 and AVX2, from 320
channels at 64x64 to 128 at 512x512, and 0.7 with AVX-512 and 1280 channels at 16x16, whose weights have 16 tiles to
serve. At 8x8 it takes 0.65 to 0.87 with AVX2 from 320 channels on, and half in WebAssembly.
"""

import logging

import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.marks import ANCHOR, mark_pattern
from mlc_controlnet.kernels.registers_cpu import registers_of
from mlc_controlnet.kernels.schedule_winograd_cpu import block_rows, gains
from mlc_controlnet.kernels.winograd_convolution import TAPS, convolve_tiles
from mlc_controlnet.passes.clean.lay_out_weights import is_direct, laid_out
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseWinogradConv2d")
class UseWinogradConv2d:
    def __init__(self, target: Target) -> None:
        self.registers = registers_of(target)

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, self._replace)
        log.info("%d convolutions are Winograd's", fired)
        return rewritten

    def _replace(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.nn.conv2d") or not is_direct(call) or not _has_taps(call):
            return None
        x, weight = call.args
        channels, height, width = shape_of(x)[1:]
        if not gains(channels, shape_of(weight)[0], height, width, self.registers):
            return None
        weight = site.builder.normalize(laid_out(weight, site.lookup))
        rows = block_rows(height, width)
        replaced = site.builder.call_te(convolve_tiles, x, weight, rows, primfunc_name_hint="winograd_conv2d")
        kernel = replaced.args[0]
        # TVM takes the transform of the results, which comes last, for the end of what fuses.
        site.builder.update_func(kernel, mark_pattern(site.builder.get()[kernel], ANCHOR))
        return replaced


def _has_taps(conv: relax.Call) -> bool:
    """Return whether it is an unstrided 3x3 convolution in float32, padded by a pixel."""
    attrs = conv.attrs
    return (
        shape_of(conv.args[1])[2:] == (TAPS, TAPS)
        and all(int(step) == 1 for step in attrs.strides)
        and all(int(side) == 1 for side in attrs.padding)
        and str(conv.args[0].ty.dtype) == str(conv.ty.dtype) == "float32"
    )

"""Fold a zero pad into the padding of the convolution that follows.

Before: y = nn.pad(x, [0, 0, 0, 0, top, bottom, left, right]); z = nn.conv2d(y, w, padding=[0, 0, 0, 0])
After:  z = nn.conv2d(x, w, padding=[top, left, bottom, right])

Fires only on a constant zero pad of the two spatial axes and an unpadded NCHW convolution. The VAE encoder pads its
downsamplers on two sides only. Without this pass, lowering for WebGPU asks for more workgroup memory than any device
has.
"""

import logging

import tvm
from tvm import relax

from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="FoldPadIntoConv2d")
class FoldPadIntoConv2d:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _fold)
        log.info("folded %d pads into convolutions", fired)
        return rewritten


def _fold(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.nn.conv2d"):
        return None
    pad, conv = site.bound_to(call.args[0]), call.attrs
    if not is_call(pad, "relax.nn.pad") or any(int(p) for p in conv.padding) or conv.data_layout != "NCHW":
        return None
    before_after = [int(width) for width in pad.attrs.pad_width]  # n, n, c, c, top, bottom, left, right
    if len(before_after) != 8 or any(before_after[:4]) or pad.attrs.pad_mode != "constant" or pad.attrs.pad_value:
        return None
    _, _, _, _, top, bottom, left, right = before_after
    return relax.op.nn.conv2d(
        pad.args[0],
        call.args[1],
        strides=list(conv.strides),
        padding=[top, left, bottom, right],
        dilation=list(conv.dilation),
        groups=conv.groups,
        data_layout=conv.data_layout,
        kernel_layout=conv.kernel_layout,
        out_dtype=conv.out_dtype,
    )

"""Fold a zero pad into the padding of the convolution that follows.

Before: y = nn.pad(x, [0, 0, 0, 0, top, bottom, left, right]); z = nn.conv2d(y, w, padding=[0, 0, 0, 0])
After:  z = nn.conv2d(x, w, padding=[top, left, bottom, right])

Fires only on a constant zero pad of the two spatial axes and an unpadded NCHW convolution. The VAE encoder pads its
downsamplers on two sides only; left alone, lowering for WebGPU asks for 33-134 MB of workgroup memory.
"""

import logging

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="FoldPadIntoConv2d")
class FoldPadIntoConv2d:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        folder = _Folder(mod)
        rewritten = rewrite(mod, folder)
        log.info("folded %d pads into convolutions", folder.fired)
        return rewritten


@mutator
class _Folder(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.fired = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "relax.nn.conv2d") or not isinstance(call.args[0], relax.Var):
            return call
        pad, conv = self.lookup_binding(call.args[0]), call.attrs
        if not is_call(pad, "relax.nn.pad") or any(int(p) for p in conv.padding) or conv.data_layout != "NCHW":
            return call
        before_after = [int(width) for width in pad.attrs.pad_width]  # n, n, c, c, top, bottom, left, right
        if len(before_after) != 8 or any(before_after[:4]) or pad.attrs.pad_mode != "constant" or pad.attrs.pad_value:
            return call
        self.fired += 1
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

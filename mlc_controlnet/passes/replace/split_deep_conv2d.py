"""Split the input channels of a convolution that leaves a GPU idle: one of many channels on a small picture.

Before: y = nn.conv2d(x, permute_dims(w, axes=[3, 0, 1, 2])); z = add(astype(y), b)
After:  p = call_tir(conv2d, (x, w)); y = call_tir(sum_of_parts, (p,)); z = add(astype(y), b)     # p [parts, N, h, w]

Stable Diffusion's 1280 channels at 8x8 are 20 workgroups, a fifth of a large GPU. In eight parts of 160 input channels
they are 160, and each is an eighth as long. What follows is fused with the sum: one launch more, and the parts, float32
in memory, written and read once: 5 MB next to 29 MB of weights. Fires as `choose_parts` says.
"""

import logging

import tvm
from tvm import relax, te

from mlc_controlnet.kernels.convolution import Value, convolve
from mlc_controlnet.kernels.convolution_tiling_gpu import choose_parts
from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape
from mlc_controlnet.passes.clean.lay_out_weights import is_direct, laid_out
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="SplitDeepConv2d")
class SplitDeepConv2d:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _split)
        log.info("split %d convolutions", fired)
        return rewritten


def parts_of(conv: relax.Call) -> int:
    """Return into how many parts to split the input channels of an nn.conv2d that `is_direct`; 1: leave it whole."""
    batch, channels, height, width = shape_of(conv)
    _, depth, kernel_y, kernel_x = shape_of(conv.args[1])
    down, across = (int(step) for step in conv.attrs.strides)
    dtype = str(conv.args[0].ty.dtype)
    return choose_parts(
        ConvolutionShape(batch, channels, height, width, depth, (kernel_y, kernel_x), (down, across), dtype)
    )


def emit_sum_of_parts(site: Site, partial: relax.Call, parts: int) -> relax.Call:
    """Sum `partial` [B * parts, N, H, W], a convolution in parts, to [B, N, H, W]; a single part is the sum."""
    if parts == 1:
        return partial
    return site.builder.call_te(_sum_of_parts, site.emit(partial), parts, primfunc_name_hint="sum_of_parts")


def _split(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.nn.conv2d") or not is_direct(call):
        return None
    parts = parts_of(call)
    if parts == 1:
        return None
    weight = site.builder.normalize(laid_out(call.args[1], site.lookup))
    attrs = call.attrs
    partial = site.builder.call_te(
        _in_parts,
        call.args[0],
        weight,
        tuple(attrs.strides),
        tuple(attrs.padding),
        str(call.ty.dtype),
        parts,
        primfunc_name_hint="conv2d",
    )
    return emit_sum_of_parts(site, partial, parts)


def _in_parts(
    x: te.Tensor,
    weight: te.Tensor,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    out_dtype: str,
    parts: int,
) -> te.Tensor:
    """[B, C, H, W] and [C, kh, kw, N] -> [B * parts, N, H', W']."""
    batch, channels, height, width = (int(extent) for extent in x.shape)
    value: Value = lambda b, c, i, j: x[b, c, i, j]  # noqa: E731
    return convolve(value, (batch, channels, height, width), weight, strides, padding, (x.dtype, out_dtype), parts)


def _sum_of_parts(partial: te.Tensor, parts: int) -> te.Tensor:
    """[B * parts, N, H, W] -> [B, N, H, W], in pairs."""
    batch, *shape = (int(extent) for extent in partial.shape)

    def total(b: tvm.tirx.Var, n: tvm.tirx.Var, y: tvm.tirx.Var, x: tvm.tirx.Var) -> tvm.tirx.Expr:
        sums = [partial[b * parts + part, n, y, x] for part in range(parts)]
        while len(sums) > 1:
            sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
        return sums[0]

    return te.compute((batch // parts, *shape), total, "sum_of_parts")

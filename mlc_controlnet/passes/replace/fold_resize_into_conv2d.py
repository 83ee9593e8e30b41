"""Fold a nearest upsampling into the convolution that follows, which then reads the small picture.

Before: y = image.resize2d(x, [2 h, 2 w], method="nearest_neighbor"); z = nn.conv2d(y, w, padding=[1, 1, 1, 1])
After:  z = call_tir(upsampled_conv2d, (x, permute_dims(w, axes=[1, 2, 3, 0])))

Fires if both axes double, on an unstrided NCHW convolution. A tensor of four times the picture is never written, and
3x3 taps become 2x2, as `convolve_doubled` says: predicted for a Radeon Pro W7900 in float16, 256 channels from 256x256
take 3.1 ms instead of 6.8. Other taps, and convolutions in parts, divide the index by two while a tile is loaded: on
GPUs only, for a processor writes the padded picture out in any case.
"""

import logging
from typing import TypeGuard

import tvm
from tvm import relax, te

from mlc_controlnet.kernels.convolution import convolve
from mlc_controlnet.kernels.doubled_convolution import convolve_doubled
from mlc_controlnet.passes.clean.lay_out_weights import is_direct, laid_out
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.replace.split_deep_conv2d import emit_sum_of_parts, parts_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="FoldResizeIntoConv2d")
class FoldResizeIntoConv2d:
    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, lambda call, site: _fold(call, site, self.on_gpu))
        log.info("folded %d upsamplings into convolutions", fired)
        return rewritten


def _fold(call: relax.Call, site: Site, on_gpu: bool) -> relax.Expr | None:
    if not is_call(call, "relax.nn.conv2d"):
        return None
    resize = site.bound_to(call.args[0])
    if not _doubles(resize) or not _is_plain(call):
        return None
    parts = parts_of(call) if on_gpu else 1
    if parts == 1 and _halves_its_taps(call):
        weight = site.builder.normalize(laid_out(call.args[1], site.lookup))
        dtype = str(call.ty.dtype)
        return site.builder.call_te(
            convolve_doubled, resize.args[0], weight, dtype, not on_gpu, primfunc_name_hint="upsampled_conv2d"
        )
    if not on_gpu:
        return None
    partial = site.builder.call_te(
        _upsampled_conv2d,
        resize.args[0],
        site.builder.normalize(laid_out(call.args[1], site.lookup)),
        tuple(call.attrs.padding),
        str(call.ty.dtype),
        parts,
        primfunc_name_hint="upsampled_conv2d",
    )
    return emit_sum_of_parts(site, partial, parts)


def _upsampled_conv2d(
    x: te.Tensor, weight: te.Tensor, padding: tuple[int, int, int, int], out_dtype: str, parts: int
) -> te.Tensor:
    """[B, C, h, w] and [C, kh, kw, N] -> [B * parts, N, H, W], the convolution of the picture doubled in both axes."""
    batch, channels, height, width = (int(size) for size in x.shape)
    return convolve(
        lambda b, c, i, j: x[b, c, i // 2, j // 2],
        (batch, channels, 2 * height, 2 * width),
        weight,
        strides=(1, 1),
        padding=padding,
        dtypes=(x.dtype, out_dtype),
        parts=parts,
    )


def _doubles(expr: relax.Expr | None) -> TypeGuard[relax.Call]:
    """Return whether the call is a nearest upsampling that repeats every number twice along both axes."""
    if not is_call(expr, "relax.image.resize2d"):
        return False
    attrs = expr.attrs
    *_, height, width = (int(size) for size in expr.args[0].ty.shape)
    *_, rows, columns = (int(size) for size in expr.ty.shape)
    # Half pixels rounded and plain division floored both give i // 2 for a factor of two.
    rounding = (attrs.coordinate_transformation_mode, attrs.rounding_method)
    return (
        attrs.layout == "NCHW"
        and attrs.method == "nearest_neighbor"
        and rounding in (("half_pixel", "round"), ("asymmetric", "floor"))
        and (rows, columns) == (2 * height, 2 * width)
    )


def _halves_its_taps(conv: relax.Call) -> bool:
    """Return whether the taps are those that `convolve_doubled` sums: 3x3, padded by a pixel."""
    return shape_of(conv.args[1])[2:] == (3, 3) and all(int(side) == 1 for side in conv.attrs.padding)


def _is_plain(conv: relax.Call) -> bool:
    """Return whether the convolution has stride 1 and a halo, which the schedule needs."""
    strides, padding = conv.attrs.strides, conv.attrs.padding
    return is_direct(conv) and all(int(step) == 1 for step in strides) and any(int(side) for side in padding)

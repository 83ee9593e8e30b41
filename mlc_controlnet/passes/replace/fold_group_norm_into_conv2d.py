"""Normalize a large plane in the convolution that reads it.

Before: y = nn.group_norm(x, gamma, beta); z = nn.silu(y); out = nn.conv2d(z, weight)
After:  partial = call_tir(statistics, (x,)); mean_and_scale = call_tir(coefficients, (partial, gamma))
        out = call_tir(normalized_conv2d, (x, mean_and_scale, beta, permute_dims(weight, axes=[1, 2, 3, 0])))

On a GPU the convolution brings its input to workgroup memory anyway, and can normalize it on the way. That saves the
plane z and a round trip of it. The cost: each workgroup of 64 output channels normalizes a copy of its own, with the
halo 1.6 times its part, at a dozen operations per element next to 64 x 9 multiply-adds. Up to 256 output channels that
takes less time than the round trip, at 20 operations per byte. Planes of less than 16 MiB stay in a GPU's cache and
have no round trip to save.
"""

import functools
import logging
import math

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.kernels.convolution import convolve
from mlc_controlnet.kernels.group_norm import group_norm_coefficients
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.passes.clean.lay_out_weights import is_direct, laid_out
from mlc_controlnet.passes.matching import is_call, readers, shape_of
from mlc_controlnet.passes.replace.use_group_norm import describe
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)

LARGE_PLANE = 16 * 2**20  # bytes
MAX_OUT_CHANNELS = 256


@tvm.transform.module_pass(opt_level=0, name="FoldGroupNormIntoConv2d")
class FoldGroupNormIntoConv2d:
    def __init__(self, large_plane: int = LARGE_PLANE) -> None:
        self.large_plane = large_plane

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rule = _Rule(self.large_plane)
        rewritten, fired = rewrite_calls(mod, rule, rule.begin)
        log.info("folded %d group norms into convolutions", fired)
        return rewritten


class _Rule:
    def __init__(self, large_plane: int) -> None:
        self.large_plane = large_plane
        self.read_once: set[relax.Var] = set()

    def begin(self, function: relax.Function) -> None:
        self.read_once = {variable for variable, reading in readers(function).items() if len(reading) == 1}

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.nn.conv2d"):
            return None
        if site.original.args[0] not in self.read_once or not _pays(call, self.large_plane):
            return None
        norm = site.bound_to(call.args[0])
        silu = is_call(norm, "relax.nn.silu")
        if is_call(norm, "relax.nn.silu"):
            norm = site.bound_to(norm.args[0])
        wanted = describe(norm, silu)
        if norm is None or wanted is None:
            return None
        x, gamma, beta = norm.args
        kernels = group_norm_coefficients(wanted)
        partial = _emit(site, kernels.statistics, "group_norm_statistics", [x], kernels.partial_shape)
        mean_and_scale = _emit(
            site, kernels.coefficients, "group_norm_coefficients", [partial, gamma], (wanted.batch, wanted.channels, 2)
        )
        attrs = call.attrs
        convolution = functools.partial(
            _normalized_conv2d, wanted, tuple(attrs.strides), tuple(attrs.padding), str(call.ty.dtype)
        )
        weight = site.builder.normalize(laid_out(call.args[1], site.lookup))
        return site.builder.call_te(
            convolution, x, mean_and_scale, beta, weight, primfunc_name_hint="normalized_conv2d"
        )


def _emit(site: Site, kernel: tirx.PrimFunc, name: str, inputs: list[relax.Expr], shape: tuple[int, ...]) -> relax.Var:
    function = site.builder.add_func(kernel, name)
    return site.emit(relax.call_tir(function, inputs, relax.TensorType(shape, "float32")))


def _pays(conv: relax.Call, large_plane: int) -> bool:
    """Return whether the plane is large, its readers are few, and there is a halo, which the schedule looks for."""
    if not is_direct(conv) or not all(int(p) for p in conv.attrs.padding):
        return False
    plane = conv.args[0].ty
    size = math.prod(shape_of(conv.args[0])) * tvm.runtime.DataType(str(plane.dtype)).itemsize
    return size >= large_plane and shape_of(conv)[1] <= MAX_OUT_CHANNELS


def _normalized_conv2d(
    norm: GroupNorm,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    out_dtype: str,
    x: te.Tensor,
    mean_and_scale: te.Tensor,
    beta: te.Tensor,
    weight: te.Tensor,
) -> te.Tensor:
    """x [B, C, H, W], mean_and_scale float32 [B, C, 2], beta [C] and weight [C, kh, kw, N] -> [B, N, H', W']."""
    batch, channels, height, width = norm.shape

    def normalized(b: tirx.Var, c: tirx.Expr, i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        mean, scale = mean_and_scale[b, c, 0], mean_and_scale[b, c, 1]
        y = (x[b, c, i, j].astype("float32") - mean) * scale + beta[c].astype("float32")
        return (y / (1 + tirx.exp(-y)) if norm.silu else y).astype(norm.dtype)

    return convolve(normalized, (batch, channels, height, width), weight, strides, padding, (norm.dtype, out_dtype))

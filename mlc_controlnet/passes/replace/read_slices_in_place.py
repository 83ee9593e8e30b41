"""Read columns of a packed product in place, in the kernel that adds them to a picture's channels.

Before: s = strided_slice(y, [1], [begin], [end]); e = expand_dims(expand_dims(s, [2]), [3]); z = add(x, e)
After:  e = call_tir(columns_as_channels, (y, begin)); z = add(x, e)

y is [1, N] and x [B, C, H, W]. In Stable Diffusion y has the projections of the time embedding of all residual blocks,
and x is the result of a convolution. FuseOps fuses a broadcast into a convolution's kernel, but not a slice. The
PrimFunc here is marked as a broadcast, because it differs from one only in the place that it reads. `begin` is a
constant in memory and not in the kernel's text, so blocks of one shape share a kernel.
"""

import logging

import numpy as np
import tvm
from tvm import relax, te

from mlc_controlnet.kernels.marks import BROADCAST, mark_pattern
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ReadSlicesInPlace")
class ReadSlicesInPlace:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _Rule())
        log.info("%d slices are read in place", fired)
        return rewritten


class _Rule:
    def __init__(self) -> None:
        self.readers: dict[tuple[int, int, str], tvm.ir.GlobalVar] = {}

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.expand_dims") or len(call.ty.shape) != 4 or _axes(call) != [3]:
            return None
        inner = site.bound_to(call.args[0])
        if not is_call(inner, "relax.expand_dims") or _axes(inner) != [2]:
            return None
        columns = site.bound_to(inner.args[0])
        if not is_call(columns, "relax.strided_slice"):
            return None
        packed, axes, begin, _, *strides = columns.args
        if shape_of(packed)[0] != 1 or [int(axis) for axis in axes] != [1] or strides:
            return None
        first = relax.const(np.array([int(begin[0])], np.int32))
        reader = self._reader(packed, first, shape_of(call)[1], site.builder)
        return relax.call_tir(reader, [packed, first], call.ty)

    def _reader(
        self, packed: relax.Expr, first: relax.Expr, channels: int, builder: relax.BlockBuilder
    ) -> tvm.ir.GlobalVar:
        kind = shape_of(packed)[1], channels, str(packed.ty.dtype)
        if kind not in self.readers:
            reader = builder.call_te(_columns_as_channels, packed, first, channels).args[0]
            builder.update_func(reader, mark_pattern(builder.get()[reader], BROADCAST))
            self.readers[kind] = reader
        return self.readers[kind]


def _axes(expand_dims: relax.Call) -> list[int]:
    return [int(axis) % len(expand_dims.ty.shape) for axis in expand_dims.attrs.axis]


def _columns_as_channels(packed: te.Tensor, first: te.Tensor, channels: int) -> te.Tensor:
    """[1, N] and int32 [1] -> [1, channels, 1, 1], the columns from that one on."""
    return te.compute((1, channels, 1, 1), lambda n, c, y, x: packed[n, first[0] + c], "columns")

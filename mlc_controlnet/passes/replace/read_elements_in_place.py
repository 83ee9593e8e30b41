"""Read one number of a vector in place, in the kernel that multiplies by it.

Before: s = strided_slice(v, [0], [i], [i + 1]); y = multiply(x, s); z = multiply(w, s)
After:  e = call_tir(element, (v, i)); y = multiply(x, e); f = call_tir(element, (v, i)); z = multiply(w, f)

v is [N]. A conversion of s to another dtype, or to more axes of one, comes along. In Stable Diffusion v has the scales
of a ControlNet's residuals, or the gates of the text encoder's layers. FuseOps fuses a broadcast into the kernel of its
only reader, but not a slice, and not what two kernels read. A copy of one number is a launch: 12 in the ControlNet, and
12 in the text encoder. `i` is a constant in memory and not in the kernel's text, so that kernels of one shape stay one.
"""

import logging
from itertools import chain

import numpy as np
import tvm
from tvm import relax, te

from mlc_controlnet.kernels.marks import BROADCAST, mark_pattern
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ReadElementsInPlace")
class ReadElementsInPlace:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _Rule())
        log.info("%d products read a vector's element in place", fired)
        return rewritten


class _Rule:
    def __init__(self) -> None:
        self.readers: dict[tuple[int, str, int], tvm.ir.GlobalVar] = {}  # by length, dtype and axes of the element

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.multiply"):
            return None
        factors = [self._in_place(factor, site) for factor in call.args]
        if factors == [None, None] or None not in factors:
            return None
        return relax.op.multiply(*(old if new is None else new for old, new in zip(call.args, factors, strict=True)))

    def _in_place(self, factor: relax.Expr, site: Site) -> relax.Expr | None:
        """Emit a reader of the element that the factor is a copy of; return None for any other factor."""
        value = site.bound_to(factor)
        if is_call(value, "relax.astype"):
            element = self._in_place(value.args[0], site)
            return None if element is None else site.emit(relax.op.astype(element, value.ty.dtype))
        ty = None if value is None else value.ty
        if is_call(value, "relax.reshape"):  # FuseOps would not fuse it: the reader writes its shape
            value = site.bound_to(value.args[0])
        if not is_call(value, "relax.strided_slice") or shape_of(value) != (1,):
            return None
        vector, axes, begin, _, *strides = value.args
        if [int(axis) for axis in axes] != [0] or any(int(step) != 1 for step in chain(*strides)):
            return None
        place = relax.const(np.array([int(begin[0])], np.int32))
        return site.emit(relax.call_tir(self._reader(vector, place, ty, site.builder), [vector, place], ty))

    def _reader(
        self, vector: relax.Expr, place: relax.Expr, ty: relax.TensorType, builder: relax.BlockBuilder
    ) -> tvm.ir.GlobalVar:
        kind = shape_of(vector)[0], str(vector.ty.dtype), int(ty.ndim)
        if kind not in self.readers:
            reader = builder.call_te(_element, vector, place, int(ty.ndim)).args[0]
            builder.update_func(reader, mark_pattern(builder.get()[reader], BROADCAST))
            self.readers[kind] = reader
        return self.readers[kind]


def _element(vector: te.Tensor, place: te.Tensor, axes: int) -> te.Tensor:
    """[N] and int32 [1] -> [1, ..., 1], the element at that place."""
    return te.compute((1,) * axes, lambda *index: vector[place[0] + index[-1]], "element")

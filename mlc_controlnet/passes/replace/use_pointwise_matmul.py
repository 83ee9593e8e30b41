"""Compute a 1x1 convolution as the matrix product that it is, with the change of layout beside it.

Before: y = conv2d(x, w); z = astype(y); a = add(z, b); t = reshape(permute_dims(a, [0, 2, 3, 1]), [B, h w, N])
After:  y = product(reshape(x, [B, C, h w]), w); z = astype(y); t = add(z, b)                         # [B, h w, N]

Before: p = permute_dims(reshape(t, [B, h, w, C]), [0, 3, 1, 2]); y = conv2d(p, w); a = add(y, b); s = add(a, r)
After:  y = product(w, t); a = add(y, b); s = reshape(add(a, reshape(r)), [B, N, h, w])               # [B, N, h w]

Before: y = conv2d(x, w); a = add(y, b)
After:  y = product(w, reshape(x, [B, C, h w])); a = reshape(add(y, b), [B, N, h, w])                 # [B, N, h w]

Both ends of every transformer of Stable Diffusion 1.5 look so: pictures are [C, h, w] and tokens [h w, C]. A product
reads either layout as it lies and writes the other one, so the two kernels that only move data go away, 32 of a UNet's,
and with them a round trip of their tensors. What follows elementwise is computed before the reshape, and thus fused.
"""

import logging
import math
from collections.abc import Callable

import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.kernels.matmul_gpu import choose_tile
from mlc_controlnet.passes.clean.lay_out_weights import laid_out
from mlc_controlnet.passes.matching import axes_of, bound_to, is_call, shape_of
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)

TO_TOKENS = [0, 2, 3, 1]
TO_PICTURE = [0, 3, 1, 2]
# Input channels of a convolution on its own: with fewer, or where no tile of a product fits, its schedule is better.
LEAST_DEPTH = 32


@tvm.transform.module_pass(opt_level=0, name="UsePointwiseMatmul")
class UsePointwiseMatmul:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        for with_permutes in (True, False):
            replacer = _Replacer(mod, with_permutes)
            mod = rewrite(mod, replacer)
            log.info("replaced %d 1x1 convolutions", replacer.fired)
        return mod


@mutator
class _Replacer(PyExprMutator):
    """with_permutes: whether it is for convolutions beside a change of layout, or for those that are left."""

    def __init__(self, mod: tvm.IRModule, with_permutes: bool) -> None:
        super().__init__(mod)
        self.rewrites = (self._to_tokens, self._to_picture) if with_permutes else (self._alone,)
        self.fired = 0
        self.products: set[relax.Var] = set()  # [B, N, h w], and what was computed on them so far

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        for replace in (*self.rewrites, self._below_reshape):
            rewritten = replace(call)
            if rewritten is not None:
                return rewritten
        return call

    def _to_tokens(self, call: relax.Call) -> relax.Expr | None:
        permute = self._input(call, "relax.reshape", "relax.permute_dims")
        if permute is None or axes_of(permute) != TO_TOKENS:
            return None
        batch, height, width, columns = shape_of(permute)
        add = self._input(permute, "relax.permute_dims", "relax.add")
        if shape_of(call) != (batch, height * width, columns) or add is None:
            return None
        cast = self._input(add, "relax.add", "relax.astype")
        conv = self._input(add if cast is None else cast, None, "relax.nn.conv2d")
        if conv is None or not _is_pointwise(conv) or shape_of(add.args[1]) != (1, columns, 1, 1):
            return None
        depth = shape_of(conv.args[0])[1]
        x = self._emit(relax.op.reshape(conv.args[0], (batch, depth, height * width)))
        y = self._product(_into_tokens, x, self._matrix(conv.args[1]))
        y = y if cast is None else self._emit(relax.op.astype(y, cast.attrs.dtype))
        bias = self._emit(relax.op.reshape(add.args[1], (columns,)))
        self.fired += 1
        return relax.op.add(y, bias)

    def _to_picture(self, call: relax.Call) -> relax.Expr | None:
        permute = self._input(call, "relax.nn.conv2d", "relax.permute_dims")
        if permute is None or axes_of(permute) != TO_PICTURE or not _is_pointwise(call):
            return None
        reshape = self._input(permute, "relax.permute_dims", "relax.reshape")
        batch, channels, height, width = shape_of(permute)
        if reshape is None or shape_of(reshape.args[0]) != (batch, height * width, channels):
            return None
        self.fired += 1
        y = self._product(_of_tokens, self._matrix(call.args[1]), reshape.args[0])
        self.products.add(y)
        return relax.op.reshape(y, shape_of(call))

    def _alone(self, call: relax.Call) -> relax.Expr | None:
        if not is_call(call, "relax.nn.conv2d") or not _is_pointwise(call):
            return None
        batch, depth, height, width = shape_of(call.args[0])
        columns = height * width
        if depth < LEAST_DEPTH or choose_tile(batch, shape_of(call)[1], columns) is None:
            return None
        self.fired += 1
        x = self._emit(relax.op.reshape(call.args[0], (batch, depth, columns)))
        y = self._product(_of_picture, self._matrix(call.args[1]), x)
        self.products.add(y)
        return relax.op.reshape(y, shape_of(call))

    def _below_reshape(self, call: relax.Call) -> relax.Expr | None:
        """elementwise(reshape(product)) -> reshape(elementwise(product)): cast, bias, scale and residual."""
        if is_call(call, "relax.astype"):
            operations = {0: lambda y: relax.op.astype(y, call.attrs.dtype)}
        elif is_call(call, "relax.add"):
            left, right = call.args
            if not len(shape_of(left)) == len(shape_of(right)) == 4:
                return None
            operations = {0: lambda y: self._add(y, right), 1: lambda y: self._add(y, left)}
        elif is_call(call, "relax.multiply") and math.prod(shape_of(call.args[1])) == 1:
            scale = call.args[1]
            operations = {0: lambda y: relax.op.multiply(y, self._emit(relax.op.reshape(scale, (1, 1, 1))))}
        else:
            return None
        for index, operation in operations.items():
            product = self._product_below(call.args[index])
            if product is not None:
                y = self._emit(operation(product))
                if not is_call(call, "relax.add") or shape_of(call.args[1 - index])[2:] == (1, 1):
                    self.products.add(y)  # a residual is the last: what it is added to, others read as well
                return relax.op.reshape(y, shape_of(call))
        return None

    def _add(self, product: relax.Var, other: relax.Expr) -> relax.Call:
        """product + other, which is [B, N, h, w] or [1, N, 1, 1]."""
        batch, channels, height, width = shape_of(other)
        return relax.op.add(product, self._emit(relax.op.reshape(other, (batch, channels, height * width))))

    def _product_below(self, expr: relax.Expr) -> relax.Var | None:
        """y, where `expr` is reshape(y) and y one of the products."""
        bound = bound_to(expr, self.lookup_binding)
        return bound.args[0] if is_call(bound, "relax.reshape") and bound.args[0] in self.products else None

    def _input(self, call: relax.Call, op: str | None, producer: str) -> relax.Call | None:
        """What `call` takes first, if `call` is of `op` (any, where None) and what it takes is of `producer`."""
        if (op is not None and not is_call(call, op)) or not isinstance(call.args[0], relax.Var):
            return None
        bound = self.lookup_binding(call.args[0])
        return bound if is_call(bound, producer) else None

    def _matrix(self, weight: relax.Expr) -> relax.Expr:
        """[N, C, 1, 1] -> [C, N], as it lies."""
        columns, depth, _, _ = shape_of(weight)
        return self._emit(relax.op.reshape(laid_out(weight, self.lookup_binding), (depth, columns)))

    def _product(self, compute: object, left: relax.Expr, right: relax.Expr) -> relax.Var:
        return self._emit(self.builder_.call_te(compute, left, right, primfunc_name_hint="pointwise_matmul"))

    def _emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder_.emit(expr)


def _into_tokens(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """[B, C, h w] and [C, N] -> float32 [B, h w, N]."""
    batch, depth, cells = x.shape
    k = te.reduce_axis((0, depth), "k")
    return te.compute(
        (batch, cells, weight.shape[1]),
        lambda b, m, n: te.sum(x[b, k, m].astype("float32") * weight[k, n].astype("float32"), axis=k),
        "matmul",
    )


def _of_tokens(weight: te.Tensor, tokens: te.Tensor) -> te.Tensor:
    """[C, N] and [B, h w, C] -> float32 [B, N, h w]."""
    batch, cells, _ = tokens.shape
    return _into_picture(weight, (batch, cells), lambda b, k, m: tokens[b, m, k])


def _of_picture(weight: te.Tensor, x: te.Tensor) -> te.Tensor:
    """[C, N] and [B, C, h w] -> float32 [B, N, h w]."""
    batch, _, cells = x.shape
    return _into_picture(weight, (batch, cells), lambda b, k, m: x[b, k, m])


def _into_picture(weight: te.Tensor, size: tuple[int, int], value: Callable[..., tirx.Expr]) -> te.Tensor:
    """[C, N] and the value at (b, c, place) of `size` [B, h w] -> float32 [B, N, h w]."""
    batch, cells = size
    depth, columns = weight.shape
    k = te.reduce_axis((0, depth), "k")
    return te.compute(
        (batch, columns, cells),
        lambda b, n, m: te.sum(weight[k, n].astype("float32") * value(b, k, m).astype("float32"), axis=k),
        "matmul",
    )


def _is_pointwise(conv: relax.Call) -> bool:
    attrs = conv.attrs
    return (
        shape_of(conv.args[1])[2:] == (1, 1)
        and attrs.groups == 1
        and not any(int(p) for p in attrs.padding)
        and all(int(s) == 1 for s in attrs.strides)
        and str(conv.ty.dtype) == "float32"
    )

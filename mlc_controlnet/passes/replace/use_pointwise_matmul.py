"""Compute a 1x1 convolution, and the change of layout before or after it, as one matrix product.

Before: y = conv2d(x, w); z = astype(y); a = add(z, b); t = reshape(permute_dims(a, [0, 2, 3, 1]), [B, h w, N])
After:  y = product(reshape(x, [B, C, h w]), w); z = astype(y); t = add(z, b)                         # [B, h w, N]

Before: p = permute_dims(reshape(t, [B, h, w, C]), [0, 3, 1, 2]); y = conv2d(p, w); a = add(y, b); s = add(a, r)
After:  y = product(w, t); a = add(y, b); s = reshape(add(a, reshape(r)), [B, N, h, w])               # [B, N, h w]

Before: y = conv2d(x, w); a = add(y, b)
After:  y = product(w, reshape(x, [B, C, h w])); a = reshape(add(y, b), [B, N, h, w])                 # [B, N, h w]

Both ends of every transformer of Stable Diffusion 1.5 have this form: pictures are [C, h, w] and tokens [h w, C]. A
product reads one layout and writes the other one, so the two kernels that only move data go away, and with them a round
trip of their tensors. Elementwise operations that follow are computed before the reshape, so FuseOps fuses them.
"""

import logging
import math
from collections.abc import Callable

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.kernels.matmul_tile import has_tile
from mlc_controlnet.passes.clean.lay_out_weights import laid_out
from mlc_controlnet.passes.matching import axes_of, is_call, shape_of
from mlc_controlnet.passes.rewriting import Rule, Site, rewrite_calls

log = logging.getLogger(__name__)

TO_TOKENS = [0, 2, 3, 1]
TO_PICTURE = [0, 3, 1, 2]
# Input channels of a convolution without a change of layout. With fewer, or if no tile of a product fits, the schedule
# of a convolution is better.
LEAST_DEPTH = 32


@tvm.transform.module_pass(opt_level=0, name="UsePointwiseMatmul")
class UsePointwiseMatmul:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        # First the convolutions with a change of layout, then all others: both rules would match the former.
        for rules in ((_to_tokens, _to_picture), (_alone,)):
            products = _Products(rules)
            mod, _ = rewrite_calls(mod, products)
            log.info("replaced %d 1x1 convolutions", products.replaced)
        return mod


class _Products:
    """Replaces convolutions by `rules`, and moves the elementwise operations that follow before the last reshape."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.replaced = 0
        self.products: set[relax.Var] = set()  # [B, N, h w], and what was computed on them so far

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        for rule in self.rules:
            replacement = rule(call, site)
            if replacement is not None:
                self.replaced += 1
                if is_call(replacement, "relax.reshape"):
                    self.products.add(replacement.args[0])
                return replacement
        return self._below_reshape(call, site)

    def _below_reshape(self, call: relax.Call, site: Site) -> relax.Expr | None:
        """Turn elementwise(reshape(product)) into reshape(elementwise(product)): cast, bias, scale and residual."""
        if is_call(call, "relax.astype"):
            operations = {0: lambda y: relax.op.astype(y, call.attrs.dtype)}
        elif is_call(call, "relax.add"):
            left, right = call.args
            if not len(shape_of(left)) == len(shape_of(right)) == 4:
                return None
            operations = {0: lambda y: _add(y, right, site), 1: lambda y: _add(y, left, site)}
        elif is_call(call, "relax.multiply") and math.prod(shape_of(call.args[1])) == 1:
            scale = call.args[1]
            operations = {0: lambda y: relax.op.multiply(y, site.emit(relax.op.reshape(scale, (1, 1, 1))))}
        else:
            return None
        for index, operation in operations.items():
            product = self._product_below(call.args[index], site)
            if product is not None:
                y = site.emit(operation(product))
                if not is_call(call, "relax.add") or shape_of(call.args[1 - index])[2:] == (1, 1):
                    self.products.add(y)  # a residual is the last: other calls read the sum as well
                return relax.op.reshape(y, shape_of(call))
        return None

    def _product_below(self, expr: relax.Expr, site: Site) -> relax.Var | None:
        """Return y if `expr` is reshape(y) and y is one of the products."""
        bound = site.bound_to(expr)
        return bound.args[0] if is_call(bound, "relax.reshape") and bound.args[0] in self.products else None


def _to_tokens(call: relax.Call, site: Site) -> relax.Expr | None:
    permute = _producer(call, "relax.reshape", "relax.permute_dims", site)
    if permute is None or axes_of(permute) != TO_TOKENS:
        return None
    batch, height, width, columns = shape_of(permute)
    add = _producer(permute, "relax.permute_dims", "relax.add", site)
    if shape_of(call) != (batch, height * width, columns) or add is None:
        return None
    cast = _producer(add, "relax.add", "relax.astype", site)
    conv = _producer(add if cast is None else cast, None, "relax.nn.conv2d", site)
    if conv is None or not _is_pointwise(conv) or shape_of(add.args[1]) != (1, columns, 1, 1):
        return None
    depth = shape_of(conv.args[0])[1]
    x = site.emit(relax.op.reshape(conv.args[0], (batch, depth, height * width)))
    y = _product(site, _into_tokens, x, _matrix(conv.args[1], site))
    y = y if cast is None else site.emit(relax.op.astype(y, cast.attrs.dtype))
    return relax.op.add(y, site.emit(relax.op.reshape(add.args[1], (columns,))))


def _to_picture(call: relax.Call, site: Site) -> relax.Expr | None:
    permute = _producer(call, "relax.nn.conv2d", "relax.permute_dims", site)
    if permute is None or axes_of(permute) != TO_PICTURE or not _is_pointwise(call):
        return None
    reshape = _producer(permute, "relax.permute_dims", "relax.reshape", site)
    batch, channels, height, width = shape_of(permute)
    if reshape is None or shape_of(reshape.args[0]) != (batch, height * width, channels):
        return None
    y = _product(site, _of_tokens, _matrix(call.args[1], site), reshape.args[0])
    return relax.op.reshape(y, shape_of(call))


def _alone(call: relax.Call, site: Site) -> relax.Expr | None:
    if not is_call(call, "relax.nn.conv2d") or not _is_pointwise(call):
        return None
    batch, depth, height, width = shape_of(call.args[0])
    columns = height * width
    if depth < LEAST_DEPTH or not has_tile(shape_of(call)[1], columns):
        return None
    x = site.emit(relax.op.reshape(call.args[0], (batch, depth, columns)))
    y = _product(site, _of_picture, _matrix(call.args[1], site), x)
    return relax.op.reshape(y, shape_of(call))


def _producer(call: relax.Call, op: str | None, producer: str, site: Site) -> relax.Call | None:
    """Find the call of `producer` that computes the first operand of `call`, if `call` is of `op` (any op if None)."""
    if op is not None and not is_call(call, op):
        return None
    bound = site.bound_to(call.args[0]) if call.args else None
    return bound if is_call(bound, producer) else None


def _add(product: relax.Var, other: relax.Expr, site: Site) -> relax.Call:
    """Return product + other, which is [B, N, h, w] or [1, N, 1, 1]."""
    batch, channels, height, width = shape_of(other)
    return relax.op.add(product, site.emit(relax.op.reshape(other, (batch, channels, height * width))))


def _matrix(weight: relax.Expr, site: Site) -> relax.Expr:
    """[N, C, 1, 1] -> [C, N], as it lies."""
    columns, depth, _, _ = shape_of(weight)
    return site.emit(relax.op.reshape(laid_out(weight, site.lookup), (depth, columns)))


def _product(site: Site, compute: object, left: relax.Expr, right: relax.Expr) -> relax.Var:
    return site.emit(site.builder.call_te(compute, left, right, primfunc_name_hint="pointwise_matmul"))


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

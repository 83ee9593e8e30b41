"""Compute attention with one very deep head in float32 as two matrix products and a softmax between.

Before: o = nn.attention(q, k, v)                                                   # [B, S, 1, D]
After:  s = product(q, k); p = softmax(scale * s); o = reshape(product(p, v))       # s and p [B, S, K]

Flash attention keeps D sums of each query in registers and reads all keys and values once for each tile of queries. For
the 512 of Stable Diffusion's VAE in float32, 128 registers and 16 KiB of workgroup memory hold 32 queries: at 512x512,
4096 tokens, it reads 3.2 GB, a vector of workgroup memory for 1.6 multiply-adds. Two products in tiles of 64 x 64 read
2.1 GB, a vector for 4, and with what the scores cost, 64 MiB that the memory plan sees and 0.3 GB of traffic, they are
faster. In float16, what bundles run where they can, twice as much fits, and flash attention it stays.

Fires on static shapes, no bias and no mask, scores that fit into half of what WebGPU binds.
"""

import logging
from collections.abc import Callable

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.kernels import softmax_gpu
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.softmax_gpu import softmax
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.replace.attention_operands import Columns, columns_of, describe, rows_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)

DEEP = 320  # numbers of a head; with fewer, flash attention has registers enough
MAX_SCORES = 64 << 20  # bytes


@tvm.transform.module_pass(opt_level=0, name="SplitDeepAttention")
class SplitDeepAttention:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, _Rule())
        log.info("split %d deep attentions", fired)
        return rewritten


class _Rule:
    def __init__(self) -> None:
        self.kernels: dict[Attention, tvm.ir.GlobalVar] = {}

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.nn.attention"):
            return None
        attention = describe(call)
        if attention is None or not _is_deep(attention):
            return None
        q, k, v = (_rows(argument, site) for argument in call.args)
        queries, keys, depth = attention.queries, attention.keys, attention.head_size

        def scores(q_tensor: te.Tensor, k_tensor: te.Tensor) -> te.Tensor:
            """[B, S, K]"""
            rows, columns = _columns(q_tensor, q.first, depth), _columns(k_tensor, k.first, depth)
            return _product((attention.batch, queries, keys), depth, rows, lambda b, j, d: columns[b, j, d])

        def values(weights: te.Tensor, v_tensor: te.Tensor) -> te.Tensor:
            """[B, S, D]"""
            rows = _columns(v_tensor, v.first, depth)
            return _product((attention.batch, queries, depth), keys, weights, lambda b, d, j: rows[b, j, d])

        score = _emit_product(site, scores, q.tensor, k.tensor)
        if attention not in self.kernels:
            kernel = softmax((attention.batch, queries, keys), attention.scale)
            self.kernels[attention] = site.builder.add_func(kernel, "softmax")
        weights = site.emit(relax.call_tir(self.kernels[attention], [score], score.ty))
        return relax.op.reshape(_emit_product(site, values, weights, v.tensor), shape_of(call))


def _rows(heads: relax.Expr, site: Site) -> Columns:
    """Return [B, S, 1, D] as columns of the tensor that holds it."""
    rows = rows_of(heads, site.lookup)
    if rows is None:
        batch, tokens, _, depth = shape_of(heads)
        rows = site.emit(relax.op.reshape(heads, (batch, tokens, depth)))
    return columns_of(rows, site.lookup) or Columns(rows, 0)


def _emit_product(site: Site, compute: Callable[..., te.Tensor], *args: relax.Expr) -> relax.Var:
    return site.emit(site.builder.call_te(compute, *args, primfunc_name_hint="attention_product"))


def _columns(tensor: te.Tensor, first: int, columns: int) -> te.Tensor:
    """Return a stage that selects columns; the product's schedule inlines it."""
    if (first, columns) == (0, tensor.shape[2]):
        return tensor
    return te.compute((*tensor.shape[:2], columns), lambda b, row, d: tensor[b, row, first + d], "columns")


def _product(shape: tuple[int, int, int], depth: int, left: te.Tensor, right: Callable[..., tirx.Expr]) -> te.Tensor:
    """Return the sum of left[b, i, k] * right(b, j, k) over k."""
    k = te.reduce_axis((0, depth), "k")
    return te.compute(shape, lambda b, i, j: te.sum(left[b, i, k] * right(b, j, k), axis=k), "matmul")


def _is_deep(attention: Attention) -> bool:
    scores = attention.batch * attention.queries * attention.keys * 4
    plain = attention.bias_shape is None and attention.causal is None
    deep = attention.heads == 1 and attention.head_size >= DEEP and attention.dtype == "float32"
    return plain and deep and scores <= MAX_SCORES and softmax_gpu.is_supported(attention.keys)

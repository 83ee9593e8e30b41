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
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.kernels import softmax_gpu
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.softmax_gpu import softmax
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.replace.attention_operands import Columns, columns_of, describe, rows_of
from mlc_controlnet.passes.rewriting import rewrite

log = logging.getLogger(__name__)

DEEP = 320  # numbers of a head; with fewer, flash attention has registers enough
MAX_SCORES = 64 << 20  # bytes


@tvm.transform.module_pass(opt_level=0, name="SplitDeepAttention")
class SplitDeepAttention:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        splitter = _Splitter(mod)
        rewritten = rewrite(mod, splitter)
        log.info("split %d deep attentions", splitter.fired)
        return rewritten


@mutator
class _Splitter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.kernels: dict[Attention, tvm.ir.GlobalVar] = {}
        self.fired = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "relax.nn.attention"):
            return call
        attention = describe(call)
        if attention is None or not _is_deep(attention):
            return call
        self.fired += 1
        q, k, v = (self._rows(argument) for argument in call.args)
        queries, keys, depth = attention.queries, attention.keys, attention.head_size

        def scores(q_tensor: te.Tensor, k_tensor: te.Tensor) -> te.Tensor:
            """[B, S, K]"""
            rows, columns = _slice(q_tensor, q.first, depth), _slice(k_tensor, k.first, depth)
            return _product((attention.batch, queries, keys), depth, rows, lambda b, j, d: columns[b, j, d])

        def values(weights: te.Tensor, v_tensor: te.Tensor) -> te.Tensor:
            """[B, S, D]"""
            rows = _slice(v_tensor, v.first, depth)
            return _product((attention.batch, queries, depth), keys, weights, lambda b, d, j: rows[b, j, d])

        score = self._emit(scores, q.tensor, k.tensor)
        weights = self.builder_.emit(relax.call_tir(self._softmax(attention), [score], score.ty))
        return relax.op.reshape(self._emit(values, weights, v.tensor), shape_of(call))

    def _softmax(self, attention: Attention) -> tvm.ir.GlobalVar:
        if attention not in self.kernels:
            shape = (attention.batch, attention.queries, attention.keys)
            self.kernels[attention] = self.builder_.add_func(softmax(shape, attention.scale), "softmax")
        return self.kernels[attention]

    def _rows(self, heads: relax.Expr) -> Columns:
        """[B, S, 1, D] as columns of what has it."""
        rows = rows_of(heads, self.lookup_binding)
        if rows is None:
            batch, tokens, _, depth = shape_of(heads)
            rows = self.builder_.emit(relax.op.reshape(heads, (batch, tokens, depth)))
        return columns_of(rows, self.lookup_binding) or Columns(rows, 0)

    def _emit(self, compute: Callable[..., te.Tensor], *args: relax.Expr) -> relax.Var:
        return self.builder_.emit(self.builder_.call_te(compute, *args, primfunc_name_hint="attention_product"))


def _slice(tensor: te.Tensor, first: int, columns: int) -> te.Tensor:
    """A stage that the product reads through: its schedule inlines it."""
    if (first, columns) == (0, tensor.shape[2]):
        return tensor
    return te.compute((*tensor.shape[:2], columns), lambda b, row, d: tensor[b, row, first + d], "columns")


def _product(shape: tuple[int, int, int], depth: int, left: te.Tensor, right: Callable[..., tirx.Expr]) -> te.Tensor:
    """The sum of left[b, i, k] * right(b, j, k) over k."""
    k = te.reduce_axis((0, depth), "k")
    return te.compute(shape, lambda b, i, j: te.sum(left[b, i, k] * right(b, j, k), axis=k), "matmul")


def _is_deep(attention: Attention) -> bool:
    scores = attention.batch * attention.queries * attention.keys * 4
    plain = attention.bias_shape is None and attention.causal is None
    deep = attention.heads == 1 and attention.head_size >= DEEP and attention.dtype == "float32"
    return plain and deep and scores <= MAX_SCORES and softmax_gpu.is_supported(attention.keys)

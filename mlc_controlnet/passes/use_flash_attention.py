"""Replace attention by the flash attention kernel.

Before: o = nn.attention(q, k, v[, bias], scale, causal_mask)
After:  o = call_tir(flash_attention, (q, k, v[, bias]))

Fires on static shapes, heads of whole vectors of four, float16 or float32, no sliding window. What it leaves alone
lowers to a PrimFunc that allocates all scores inside itself, unseen by the memory plan: 537 MB for Stable Diffusion's
64x64 self-attention at batch 1, where WebGPU's default largest binding is 128 MiB.
"""

import logging

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseFlashAttention")
class UseFlashAttention:
    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        replacer = _Replacer(mod, self.target)
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                replacer.builder_.update_func(global_var, replacer.visit_expr(function))
        log.info("replaced %d attentions by %d kernels, left %d", replacer.fired, len(replacer.kernels), replacer.left)
        return replacer.builder_.get()


@mutator
class _Replacer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, target: Target) -> None:
        super().__init__(mod)
        self.target = target
        self.kernels: dict[Attention, tvm.ir.GlobalVar] = {}
        self.fired = 0
        self.left = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op not in (tvm.ir.Op.get("relax.nn.attention"), tvm.ir.Op.get("relax.nn.attention_bias")):
            return call
        attention = _describe(call)
        if attention is None or not attention.is_supported():
            self.left += 1
            return call
        self.fired += 1
        if attention not in self.kernels:
            name = f"flash_attention_{attention.queries}x{attention.keys}_{attention.heads}x{attention.head_size}"
            self.kernels[attention] = self.builder_.add_func(flash_attention(attention, self.target), name)
        return relax.call_tir(self.kernels[attention], list(call.args), call.ty)


def _describe(call: relax.Call) -> Attention | None:
    """What the call asks for, None if a size is unknown or it asks for a sliding window."""
    shapes = [_static_shape(argument) for argument in call.args]
    if None in shapes or call.attrs.window_size is not None:
        return None
    query, key, value, *bias = shapes
    assert query is not None and key is not None
    if value != key:  # heads of another size for the values
        return None
    batch, queries, heads, head_size = query
    scale = call.attrs.scale
    return Attention(
        batch=batch,
        queries=queries,
        keys=key[1],
        heads=heads,
        head_size=head_size,
        dtype=str(call.args[0].ty.dtype),
        scale=head_size**-0.5 if scale is None else float(scale),
        bias_shape=bias[0] if bias else None,
        causal=call.attrs.causal_mask,
    )


def _static_shape(tensor: relax.Expr) -> tuple[int, ...] | None:
    shape = tensor.ty.shape
    if shape is None or not all(isinstance(size, tvm.tirx.IntImm) for size in shape):
        return None
    return tuple(int(size) for size in shape)

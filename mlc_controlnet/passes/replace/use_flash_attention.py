"""Replace attention by the flash attention kernel.

Before: o = nn.attention(q, k, v[, bias], scale, causal_mask)
After:  o = reshape(call_tir(flash_attention, (reshape(q), reshape(k), reshape(v)[, bias])), [B, S, H, D])

Before: q, k, v are reshapes of three slices [B, S, H D] that are all of y [B, S, 3 H D]
After:  o = reshape(call_tir(flash_attention, (y,)), [B, S, H, D])

Before: k and v are reshapes of slices [B, K, H D] of y [B, K, W], which other attentions read as well
After:  o = reshape(call_tir(flash_attention, (reshape(q), reshape(y, [B K W]), place)), [B, S, H, D])

The kernel reads packed rows where they lie, so the slices, a launch and a round trip each, go away. `place` is a
constant, so that all cross-attentions of one shape share a kernel.

Fires on static shapes, heads of whole vectors of four, float16 or float32, no sliding window. Any other attention
lowers to a PrimFunc that allocates all scores inside itself, where the memory plan does not see them: for Stable
Diffusion's 64x64 self-attention at batch 1 four times what WebGPU binds by default.
"""

import dataclasses
import logging
import math

import numpy as np
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.replace.attention_operands import Columns, columns_of, describe, rows_of
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="UseFlashAttention")
class UseFlashAttention:
    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rule = _Rule(self.target)
        rewritten, fired = rewrite_calls(mod, rule)
        log.info("replaced %d attentions by %d kernels, left %d", fired, len(rule.kernels), rule.left)
        return rewritten


class _Rule:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.kernels: dict[Attention, tvm.ir.GlobalVar] = {}
        self.flat: dict[relax.Expr, relax.Expr] = {}
        self.left = 0

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.nn.attention") and not is_call(call, "relax.nn.attention_bias"):
            return None
        attention = describe(call)
        if attention is None or not attention.is_supported():
            self.left += 1
            return None
        attention, operands = self._lay_out(attention, call, site)
        if attention not in self.kernels:
            name = f"flash_attention_{attention.queries}x{attention.keys}_{attention.heads}x{attention.head_size}"
            self.kernels[attention] = site.builder.add_func(flash_attention(attention, self.target), name)
        output = relax.TensorType(attention.query_shape, attention.dtype)
        y = site.emit(relax.call_tir(self.kernels[attention], operands, output))
        return relax.op.reshape(y, shape_of(call))

    def _lay_out(self, attention: Attention, call: relax.Call, site: Site) -> tuple[Attention, list[relax.Expr]]:
        """Choose the layout of the attention by the tensors of its operands. Returns it with its kernel's arguments."""
        width = attention.width
        rows = [_rows(argument, width, site) for argument in call.args[:3]]
        q, k, v = (columns_of(row, site.lookup) for row in rows)
        if attention.bias_shape is None and k is not None and v is not None and k.tensor == v.tensor:
            total = shape_of(k.tensor)[2]
            if q == Columns(k.tensor, 0) and (k.first, v.first, total) == (width, 2 * width, 3 * width):
                return dataclasses.replace(attention, layout="together"), [k.tensor]
            if not any(number % LANES for number in (k.first, v.first, total)):
                place = attention.place_of(total, k.first, v.first)
                operands = [rows[0], self._flat(k.tensor, site), relax.const(np.array(place, np.int32))]
                return dataclasses.replace(attention, layout="shared"), operands
        return attention, [*rows, *call.args[3:]]

    def _flat(self, tensor: relax.Expr, site: Site) -> relax.Expr:
        """Return one flat view for all kernels that read the tensor."""
        if tensor not in self.flat:
            self.flat[tensor] = site.emit(relax.op.reshape(tensor, (math.prod(shape_of(tensor)),)))
        return self.flat[tensor]


def _rows(heads: relax.Expr, width: int, site: Site) -> relax.Expr:
    """Reshape [B, S, H, D] to [B, S, H D]."""
    rows = rows_of(heads, site.lookup)
    return site.emit(relax.op.reshape(heads, (*shape_of(heads)[:2], width))) if rows is None else rows

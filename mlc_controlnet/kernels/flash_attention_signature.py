# mypy: disable-error-code="no-untyped-def, valid-type"
"""The parameters of flash attention kernels: the same for every target, different for each layout."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import Attention


def with_signature(attention: Attention, body: Any) -> tirx.PrimFunc:
    """Wrap the macro `body` (q, k, v, bias, place, output) in a PrimFunc. The macro gets q for each missing one.

    apart      (q, k, v, output) or (q, k, v, bias, output)
    together   (qkv, output)
    shared     (q, shared, place, output): shared is flat, place is int32 [3], see `Attention.place_of`
    """
    dtype = attention.dtype
    B, S, C = attention.query_shape
    K = attention.keys

    if attention.layout == "together":

        @T.prim_func(s_tir=True, private=True)
        def flash_attention_together(
            qkv: T.Buffer((B, S, 3 * C), dtype),
            output: T.Buffer((B, S, C), dtype),
        ):
            body(qkv, qkv, qkv, qkv, qkv, output)

        return flash_attention_together

    if attention.layout == "shared":
        size = tirx.Var("size", "int64")

        @T.prim_func(s_tir=True, private=True)
        def flash_attention_shared(
            q: T.Buffer((B, S, C), dtype),
            shared: T.Buffer((size,), dtype),
            place: T.Buffer((3,), "int32"),
            output: T.Buffer((B, S, C), dtype),
        ):
            body(q, shared, shared, q, place, output)

        return flash_attention_shared

    if attention.bias_shape is not None:

        @T.prim_func(s_tir=True, private=True)
        def flash_attention_biased(
            q: T.Buffer((B, S, C), dtype),
            k: T.Buffer((B, K, C), dtype),
            v: T.Buffer((B, K, C), dtype),
            bias: T.Buffer(attention.bias_shape, dtype),
            output: T.Buffer((B, S, C), dtype),
        ):
            body(q, k, v, bias, q, output)

        return flash_attention_biased

    @T.prim_func(s_tir=True, private=True)
    def flash_attention(
        q: T.Buffer((B, S, C), dtype),
        k: T.Buffer((B, K, C), dtype),
        v: T.Buffer((B, K, C), dtype),
        output: T.Buffer((B, S, C), dtype),
    ):
        body(q, k, v, q, q, output)

    return flash_attention

"""Convert torch operators to Relax that TVM's importer lacks, or converts to something that we cannot use.

Each converter replaces the importer's own. Attention, group norm, silu and layer norm stay whole operators, because
passes replace them with our kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from tvm import relax

Converter = Callable[[fx.Node, Any], relax.Expr]


def _argument(node: fx.Node, position: int, keyword: str, default: Any = None) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(keyword, default)


def _narrow(block_builder: relax.BlockBuilder, y: relax.Expr, dtype: str) -> relax.Expr:
    """Round a float32 accumulation to the storage dtype. Half accumulation costs 2-5 times the error."""
    return y if dtype == "float32" else block_builder.emit(relax.op.astype(y, dtype))


def _linear(node: fx.Node, importer: Any) -> relax.Expr:
    """Emit y = x @ w.T + b, accumulated in float32; the importer's own hard-codes a float32 result."""
    emit = importer.block_builder.emit
    x, weight = importer.env[node.args[0]], importer.env[node.args[1]]
    bias = _argument(node, 2, "bias")
    y = emit(relax.op.matmul(x, emit(relax.op.permute_dims(weight)), out_dtype="float32"))
    y = _narrow(importer.block_builder, y, str(x.ty.dtype))
    return y if bias is None else emit(relax.op.add(y, importer.env[bias]))


def _conv2d(node: fx.Node, importer: Any) -> relax.Expr:
    """Emit a convolution accumulated in float32; the importer's own hard-codes a float32 result."""
    emit = importer.block_builder.emit
    x, weight = importer.env[node.args[0]], importer.env[node.args[1]]
    bias = _argument(node, 2, "bias")
    y = emit(
        relax.op.nn.conv2d(
            x,
            weight,
            strides=_pair(_argument(node, 3, "stride", 1)),
            padding=_pair(_argument(node, 4, "padding", 0)),
            dilation=_pair(_argument(node, 5, "dilation", 1)),
            groups=_argument(node, 6, "groups", 1),
            out_dtype="float32",
        )
    )
    y = _narrow(importer.block_builder, y, str(x.ty.dtype))
    if bias is None:
        return y
    b = importer.env[bias]
    return emit(relax.op.add(y, emit(relax.op.reshape(b, [1, b.ty.shape[0], 1, 1]))))


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _mean(node: fx.Node, importer: Any) -> relax.Expr:
    """Emit a mean over some axes, accumulated in float32; the importer's own sums in float16, which overflows."""
    emit = importer.block_builder.emit
    x = importer.env[node.args[0]]
    wide = emit(relax.op.astype(x, "float32"))
    y = emit(relax.op.mean(wide, list(node.args[1]), keepdims=_argument(node, 2, "keepdim", False)))
    return _narrow(importer.block_builder, y, str(x.ty.dtype))


def _embedding(node: fx.Node, importer: Any) -> relax.Expr:
    """Emit a lookup of a table's rows. Ids are clipped: an id outside the table must not read outside its memory."""
    weight, ids = importer.env[node.args[0]], importer.env[node.args[1]]
    return importer.block_builder.emit(relax.op.take(weight, ids, axis=0, mode="clip"))


def _scaled_dot_product_attention(node: fx.Node, importer: Any) -> relax.Expr:
    """Emit attention on [B, heads, S, d]. relax.nn.attention wants [B, S, heads, d]."""
    emit = importer.block_builder.emit
    mask = _argument(node, 3, "attn_mask")
    dropout, is_causal = _argument(node, 4, "dropout_p", 0.0), _argument(node, 5, "is_causal", False)
    assert mask is None, "no component passes a mask: CLIP's is expressed by is_causal"
    assert dropout == 0.0, "components are captured in eval mode"

    def swap(x: relax.Expr) -> relax.Expr:
        return emit(relax.op.permute_dims(x, [0, 2, 1, 3]))

    q, k, v = (swap(importer.env[x]) for x in node.args[:3])
    y = relax.op.nn.attention(q, k, v, scale=node.kwargs.get("scale"), causal_mask="TopLeft" if is_causal else None)
    return swap(emit(y))


def _same(node: fx.Node, importer: Any) -> relax.Expr:
    """Replace a copy to another device by the tensor itself, because the compiler has only one device."""
    return importer.env[node.args[0]]


CONVERTERS: dict[str, Converter] = {
    "linear.default": _linear,
    "conv2d.default": _conv2d,
    "mean.dim": _mean,
    "embedding.default": _embedding,
    "scaled_dot_product_attention.default": _scaled_dot_product_attention,
    "to.device": _same,
}

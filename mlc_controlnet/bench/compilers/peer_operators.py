"""A model in the operators that onnxruntime-web's WebGPU provider has kernels of its own for, exported to ONNX.

onnxruntime's own tools for Stable Diffusion (onnxruntime.transformers, model type unet) join the same operations in an
exported graph. Packed queries, keys and values, and an operator for group norms, this provider does not have. It
decomposes ONNX's group norm into 17 launches, so here a group norm is the instance norm over its groups that torch's
older exporter writes: 27 instead of 91 us with silu, [1, 320, 64, 64] in float16, predicted for a Radeon Pro W7900.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx_ir
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch.nn import functional as F

from mlc_controlnet.bench.operations.onnx_peer import OPSET, quiet_exporter
from mlc_controlnet.bench.operations.operations import Attention, Geglu, GroupNormSilu

DOMAIN = "com.microsoft"
# What the provider's BiasSplitGelu takes: twice the width of a feed-forward layer of Stable Diffusion. In float16 its
# shader (onnxruntime-web 1.30) does not compile.
SPLIT_WIDTHS = (2560, 5120, 10240)
# The sizes of a head up to which the operator for attention is faster than products with a softmax between them, over
# many keys and over a text's few. Predicted for a Radeon Pro W7900 in float16: 1486 us instead of 1509 with heads of 40
# over 4096 keys, but 245 instead of 132 with heads of 80 over 1024; over 77 keys 19 instead of 33 with heads of 80, but
# 38 instead of 16 with heads of 160.
JOINED_HEAD, JOINED_HEAD_OVER_FEW, FEW_KEYS = 40, 80, 77
EMBEDDED_BYTES = 1024  # a larger tensor's values stand in a file beside the model


def fuse(module: nn.Module) -> nn.Module:
    """Return the module in the provider's operators. It is changed, and afterwards good for an export alone."""
    match module:
        case Attention():
            return AttentionOperator(module)
        case Geglu():
            return GatedProduct(module.projection)
        case GroupNormSilu():
            return nn.Sequential(InstanceNorms(module.norm), Silu())
        case nn.Linear():
            return Product(module)
        case nn.SiLU():
            return Silu()
        case nn.GroupNorm():
            return InstanceNorms(module)
        case BasicTransformerBlock():
            return TransformerBlock(module)
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    return module


class Product(nn.Module):
    """A linear layer whose weights are transposed before the export: [in, out]."""

    def __init__(self, layer: nn.Linear, with_bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
        self.bias = layer.bias if with_bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        product = torch.matmul(x, self.weight)
        return product if self.bias is None else product + self.bias


class Silu(nn.Module):
    """x * sigmoid(x) in one launch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] -> [...]"""
        return _call("QuickGelu", [x], x.shape, alpha=1.0)


class InstanceNorms(nn.Module):
    """A group norm."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.ones, self.zeros = (
            nn.Parameter(torch.full((norm.num_groups,), value, dtype=norm.weight.dtype), requires_grad=False)
            for value in (1.0, 0.0)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, ...] -> [B, C, ...]"""
        grouped = x.reshape(x.shape[0], self.groups, -1)
        arguments = [grouped, self.ones, self.zeros]
        normalized = _call("InstanceNormalization", arguments, grouped.shape, domain="", epsilon=self.eps)
        each = (-1, *[1] * (x.ndim - 2))
        return normalized.reshape(x.shape) * self.weight.reshape(each) + self.bias.reshape(each)


class AttentionOperator(nn.Module):
    """Attention in one operator, whatever its size."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """[B, T, heads * d], [B, S, heads * d] twice -> [B, T, heads * d]"""
        return _attend(q, k, v, self.heads)


class AttentionLayer(nn.Module):
    """diffusers' attention layer without the bias of its last product, which the norm after it adds."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (Product(part) for part in (layer.to_q, layer.to_k, layer.to_v))
        self.to_out = Product(layer.to_out[0], with_bias=False)
        self.out_bias = layer.to_out[0].bias
        self.heads = layer.heads
        self.attend = Attention(layer.heads)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """[B, T, C] -> [B, T, C]"""
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        is_joined = q.shape[-1] // self.heads <= (JOINED_HEAD if k.shape[1] > FEW_KEYS else JOINED_HEAD_OVER_FEW)
        return self.to_out(_attend(q, k, v, self.heads) if is_joined else self.attend(q, k, v))


class TransformerBlock(nn.Module):
    """diffusers' BasicTransformerBlock: a residual sum and the norm after it are one operator, and so is GEGLU."""

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.attend_self, self.attend_context = AttentionLayer(block.attn1), AttentionLayer(block.attn2)
        self.norms = nn.ModuleList([block.norm1, block.norm2, block.norm3])
        gated, _, last = block.ff.net
        self.geglu, self.last = GatedProduct(gated.proj), Product(last)

    def forward(self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: object) -> torch.Tensor:
        """[B, T, C] -> [B, T, C]"""
        x = hidden_states
        normed = self.norms[0](x)
        attended = self.attend_self(normed, normed)
        normed, x = _add_and_norm(attended, x, self.norms[1], self.attend_self.out_bias)
        attended = self.attend_context(normed, encoder_hidden_states)
        normed, x = _add_and_norm(attended, x, self.norms[2], self.attend_context.out_bias)
        return self.last(self.geglu(normed)) + x


class GatedProduct(nn.Module):
    """GEGLU: the provider joins all after the product."""

    def __init__(self, proj: nn.Linear) -> None:
        super().__init__()
        self.is_joined = proj.out_features in SPLIT_WIDTHS and proj.weight.dtype == torch.float32
        self.proj = Product(proj, with_bias=not self.is_joined)
        self.bias = proj.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] -> [B, T, width]"""
        both = self.proj(x)
        if self.is_joined:
            return _call("BiasSplitGelu", [both, self.bias], (*both.shape[:-1], both.shape[-1] // 2))
        hidden, gate = both.chunk(2, dim=-1)
        return hidden * F.gelu(gate)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, T, heads * d], [B, S, heads * d] twice -> [B, T, heads * d]"""
    return _call("MultiHeadAttention", [q, k, v], q.shape, num_heads=heads)


def _add_and_norm(
    x: torch.Tensor, skip: torch.Tensor, norm: nn.LayerNorm, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the norm of x + skip + bias, and that sum."""
    statistics = (*x.shape[:-1], 1)
    normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::SkipLayerNormalization",
        [x, skip, norm.weight, norm.bias, bias],
        {"epsilon": norm.eps},
        dtypes=[x.dtype, torch.float32, torch.float32, x.dtype],
        shapes=[x.shape, statistics, statistics, x.shape],
        version=1,
    )
    return normed, total


def _call(
    operator: str, inputs: Sequence[torch.Tensor], shape: Sequence[int], domain: str = DOMAIN, **attributes: float
) -> torch.Tensor:
    return torch.onnx.ops.symbolic(
        f"{domain}::{operator}",
        inputs,
        attributes,
        dtype=inputs[0].dtype,
        shape=shape,
        version=1 if domain else OPSET,
    )


def export_fused(module: nn.Module, inputs: tuple[torch.Tensor, ...], file: Path) -> None:
    """Write a module that `fuse` returned, with its weights."""
    onnx_ir.save(_exported(module, inputs), file)


def export_without_values(module: nn.Module, inputs: tuple[torch.Tensor, ...], file: Path) -> Path:
    """Write a module that `fuse` returned; all its large weights are the same zeros, in the file that is returned.

    That file is as large as the largest of them, so that no gigabytes are written: which shaders are launched depends
    on no weight.
    """
    model, weights = _exported(module, inputs), file.with_suffix(".bin")
    largest = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= EMBEDDED_BYTES:
            continue
        largest = max(largest, tensor.nbytes)
        shape = onnx_ir.Shape(tensor.numpy().shape)
        value.const_value = onnx_ir.ExternalTensor(
            weights.name, 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name), base_dir=file.parent
        )
    with weights.open("wb") as zeros:
        zeros.truncate(largest)
    onnx_ir.save(model, file)
    return weights


def _exported(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> onnx_ir.Model:
    with quiet_exporter():
        program = torch.onnx.export(module, inputs, dynamo=True, opset_version=OPSET, verbose=False)
    for node in program.model.graph:
        if node.op_type == "SkipLayerNormalization":
            for statistic in node.outputs[1:3]:
                statistic.name = ""  # not asked for
    return program.model

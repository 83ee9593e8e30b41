"""The text encoder: token ids -> context."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel


class TextEncoder(nn.Module):
    """CLIP's text transformer on int32 ids.

    transformers builds its causal mask from int64 comparisons, and WGSL has no int64. Here the attention operator is
    causal itself, without a mask. As in Stable Diffusion, tokens also attend to padding.
    """

    def __init__(self, model: CLIPTextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: torch.Tensor, layer_gates: torch.Tensor) -> torch.Tensor:
        """int32 [B, T], float32 [L] -> [B, T, D].

        A gate, 1 or 0, multiplies what its layer adds to x: (1, ..., 1, 0) gives the output of the last layer but one,
        exactly. The products are part of the kernels that add and, on a GPU, read their gate in place, so the choice
        of a layer costs neither launches nor memory there. `Tensor.split` would keep all gates in buffers, 40 KiB.

        That of Stable Diffusion XL ends without its last layer and norm: see `checkpoint.text_encoders`.
        """
        text = self.model
        x = embed(text, token_ids)
        for index, layer in enumerate(text.encoder.layers):
            gate = layer_gates[index : index + 1].to(x.dtype)
            x = x + gate * attend(layer.self_attn, layer.layer_norm1(x))
            x = x + gate * layer.mlp(layer.layer_norm2(x))
        return text.final_layer_norm(x)


def embed(text: CLIPTextModel, token_ids: torch.Tensor) -> torch.Tensor:
    """int32 [B, T] -> what the first layer reads, [B, T, D]."""
    tokens, positions = text.embeddings.token_embedding.weight, text.embeddings.position_embedding.weight
    return F.embedding(token_ids, tokens) + positions[None, : token_ids.shape[1]]


def attend(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply causal self-attention: [B, T, D] -> [B, T, D]."""
    B, T, D = x.shape
    heads = attention.num_heads

    def split(projected: torch.Tensor) -> torch.Tensor:
        return projected.view(B, T, heads, D // heads).transpose(1, 2)  # [B, heads, T, D / heads]

    q, k, v = split(attention.q_proj(x)), split(attention.k_proj(x)), split(attention.v_proj(x))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attention.out_proj(y.transpose(1, 2).reshape(B, T, D))

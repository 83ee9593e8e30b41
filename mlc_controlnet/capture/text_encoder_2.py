"""The second text encoder of Stable Diffusion XL: token ids -> the whole context, and the pooled output."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel

from mlc_controlnet.capture.text_encoder import attend, embed


class TextEncoder2(nn.Module):
    """CLIP's text transformer whose context is the output of an inner layer (arXiv 2307.01952, section 2.1).

    All layers, the final norm and the projection make the pooled output, that of the prompt's end.
    """

    def __init__(self, model: CLIPTextModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        token_ids: torch.Tensor,  # int32 [B, T]
        layer_gates: torch.Tensor,  # float32 [L]
        end_position: torch.Tensor,  # int32 [1]: of the first end token
        first_context: torch.Tensor,  # [B, T, D1]: the first text encoder's
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the context [B, T, D1 + D2] and the pooled output [B, P].

        The context is the output of the last layer whose gate is 1; gates of 0 follow it. The last layer of all has no
        gate, because only the pooled output reads it.
        """
        text = self.model
        x = embed(text, token_ids)  # [B, T, D2]
        context = x
        for index, layer in enumerate(text.encoder.layers):
            x = x + attend(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
            if index < len(text.encoder.layers) - 1:
                taken, kept = (gates[index : index + 1].to(x.dtype) for gates in (layer_gates, 1.0 - layer_gates))
                context = context * kept + x * taken
        end = F.embedding(end_position, x.reshape(x.shape[1:]))  # [1, D2]
        pooled = text.text_projection(text.final_layer_norm(end))
        return torch.cat([first_context, context], dim=-1), pooled

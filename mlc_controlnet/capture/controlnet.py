"""The ControlNet: sample, timestep, context, control embedding, scale -> residuals."""

import copy

import torch
from diffusers import ControlNetModel
from torch import nn

from mlc_controlnet.capture.added_conditions import take_added, with_exact_sinusoids
from mlc_controlnet.checkpoint.union_controlnet import FUSER


class ControlNet(nn.Module):
    """diffusers' ControlNet without its control embedding (arXiv 2302.05543, section 3.2).

    Each residual has a conditioning scale of its own, an input: guess mode and the control modes of Stable Diffusion
    web UI are other scales, not other builds.

    A ControlNet with `global_pool_conditions`, as the kind shuffle is, averages each residual over the picture. The
    average fills the residual's shape, so that one UNet reads the residuals of all kinds.
    """

    def __init__(self, model: ControlNetModel) -> None:
        super().__init__()
        self.model = copy.copy(with_exact_sinusoids(model))
        self.model._modules = {**self.model._modules, "controlnet_cond_embedding": nn.Identity(), FUSER: None}
        # diffusers would flip the control embedding: it expects the control image there.
        self.pools = bool(model.config.global_pool_conditions)
        self.model.register_to_config(controlnet_conditioning_channel_order="rgb", global_pool_conditions=False)

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        *others: torch.Tensor,  # the pooled output [1, P] and the time ids [1, 6] float32 of Stable Diffusion XL;
        # the control embedding [B, C, h, w]; the conditioning scales [R] float32, one for each residual
    ) -> tuple[torch.Tensor, ...]:
        dtype = context.dtype
        added, (control_embedding, conditioning_scales) = take_added(self.model, others)
        down, mid = self.model(
            sample.to(dtype),
            timestep,
            encoder_hidden_states=context,
            controlnet_cond=control_embedding,
            conditioning_scale=1.0,
            return_dict=False,
            **added,
        )
        residuals = (*down, mid)
        if self.pools:
            residuals = tuple(r.mean((2, 3), keepdim=True).expand_as(r) for r in residuals)
        scales = conditioning_scales.to(dtype)
        # A slice, because an index would be a tensor of int64, which WGSL lacks.
        return tuple(residual * scales[i : i + 1] for i, residual in enumerate(residuals))

"""The UNet: sample, timestep, context, residuals -> the model's output."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from mlc_controlnet.capture.added_conditions import take_added, with_exact_sinusoids
from mlc_controlnet.capture.guidance_embedding import GuidanceEmbedding
from mlc_controlnet.capture.unet_shallow import reading_layer


class UNet(nn.Module):
    """diffusers' UNet with the ControlNet's residuals added to its skip connections and its middle block.

    A UNet without a middle block adds the last residual in its place.

    Args:
        cached_branch: a skip connection. The UNet then also returns what the layer that reads it gets from below, the
            deep feature of `UNetShallow`.
    """

    def __init__(self, model: UNet2DConditionModel, cached_branch: int | None = None) -> None:
        super().__init__()
        self.model = with_exact_sinusoids(model)
        self.cached_branch = cached_branch
        width = model.config.time_cond_proj_dim
        self.embed_guidance = None if width is None else GuidanceEmbedding(width)

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        *others: torch.Tensor,  # the guidance scale, [1] float32, of a model that embeds it; the pooled output [1, P]
        # and the time ids [1, 6] float32 of Stable Diffusion XL; then the residuals
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        dtype = context.dtype
        guidance = None
        if self.embed_guidance is not None:
            guidance, others = self.embed_guidance(others[0]).to(dtype), others[1:]
        added, residuals = take_added(self.model, others)
        deep_features: list[torch.Tensor] = []
        hook = None
        if self.cached_branch is not None:
            width = residuals[self.cached_branch].shape[1]

            def note(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                deep_features.append(inputs[0][:, :-width])  # the skip connection's channels are the last

            hook = reading_layer(self.model, self.cached_branch).register_forward_pre_hook(note)
        output = self.model(
            sample.to(dtype),
            timestep,
            timestep_cond=guidance,
            encoder_hidden_states=context,
            down_block_additional_residuals=tuple(residuals[:-1]),
            mid_block_additional_residual=residuals[-1],
            return_dict=False,
            **added,
        )[0]
        if hook is None:
            return output.float()
        hook.remove()
        return output.float(), *deep_features

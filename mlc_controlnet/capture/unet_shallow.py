"""The shallow UNet of DeepCache: sample, timestep, context, deep feature, residuals -> the model's output."""

import copy
from collections.abc import Iterator, Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from mlc_controlnet.capture.added_conditions import take_added, with_exact_sinusoids
from mlc_controlnet.capture.guidance_embedding import GuidanceEmbedding


class UNetShallow(nn.Module):
    """diffusers' UNet without the layers between skip connection `branch` and the layer that reads it again.

    In their place it takes what the whole UNet gave that layer in an earlier step (DeepCache, arXiv 2312.00858, section
    3.2). Its weights are some of the UNet's.

    Args:
        branch: number of a skip connection: 0 is that of `conv_in`, and every layer of the encoder adds one, samplers
            included. This is the paper's branch m, as its authors' code counts it.
    """

    def __init__(self, model: UNet2DConditionModel, branch: int) -> None:
        super().__init__()
        self.model = copy.copy(with_exact_sinusoids(model))
        self.model._modules = {
            **self.model._modules,
            "down_blocks": nn.ModuleList(_first_layers(model.down_blocks, branch)),
            "mid_block": _Nothing(),
            "up_blocks": nn.ModuleList(_last_layers(model.up_blocks, branch + 1)),
        }
        width = model.config.time_cond_proj_dim
        self.embed_guidance = None if width is None else GuidanceEmbedding(width)

    def forward(
        self,
        sample: torch.Tensor,  # [B, C, h, w] float32
        timestep: torch.Tensor,  # [1] float32
        context: torch.Tensor,  # [B, T, D]
        *others: torch.Tensor,  # the guidance scale, [1] float32, of a model that embeds it; the pooled output [1, P]
        # and the time ids [1, 6] float32 of Stable Diffusion XL; the feature; residuals
    ) -> torch.Tensor:
        dtype = context.dtype
        guidance = None
        if self.embed_guidance is not None:
            guidance, others = self.embed_guidance(others[0]).to(dtype), others[1:]
        added, (deep_feature, *residuals) = take_added(self.model, others)
        output = self.model(
            sample.to(dtype),
            timestep,
            timestep_cond=guidance,
            encoder_hidden_states=context,
            down_block_additional_residuals=tuple(residuals),
            mid_block_additional_residual=deep_feature,  # added to what the middle block leaves: nothing
            return_dict=False,
            **added,
        )[0]
        return output.float()


class _Nothing(nn.Module):
    def forward(self, sample: torch.Tensor, emb: torch.Tensor) -> int:
        return 0


def reading_layer(model: UNet2DConditionModel, branch: int) -> nn.Module:
    """Return the decoder's residual block that reads skip connection `branch`."""
    blocks = [resnet for block in model.up_blocks for resnet in block.resnets]
    return blocks[-1 - branch]


def _first_layers(blocks: Sequence[nn.Module], count: int) -> Iterator[nn.Module]:
    """Yield the encoder's blocks up to `count` layers, the last of them cut off."""
    for block in blocks:
        if count <= 0:
            return
        layers = len(block.resnets)
        yield _cut(block, slice(0, count), keeps_sampler=count > layers)
        count -= layers + (block.downsamplers is not None)


def _last_layers(blocks: Sequence[nn.Module], count: int) -> list[nn.Module]:
    """Return the decoder's blocks with its last `count` residual blocks, the first of them cut off."""
    kept: list[nn.Module] = []
    for block in reversed(blocks):
        if count <= 0:
            break
        kept.insert(0, _cut(block, slice(-count, None), keeps_sampler=True))
        count -= len(block.resnets)
    return kept


def _cut(block: nn.Module, layers: slice, keeps_sampler: bool) -> nn.Module:
    """Return a block with the same modules, but only `layers` of its residual and attention blocks."""
    short = copy.copy(block)
    modules = dict(block._modules)
    for name in ("resnets", "attentions"):
        if name in modules:
            modules[name] = modules[name][layers]
    if not keeps_sampler:
        modules["downsamplers"] = None
    short._modules = modules
    return short

"""Nearest upsampling whose gradient torch.compile computes correctly."""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import nn


class RepeatedUpsample(nn.Module):
    """diffusers' `Upsample2D`, which repeats pixels by expanding instead of by `F.interpolate`.

    torch.compile turns the gradient of `F.interpolate` into additions to a buffer of zeros. On a processor torch 2.13
    loses this dependency when it fuses loops (compare the unmet dependencies before and after in
    `torch._inductor.scheduler`), and reads the buffer before the additions. The gradients that flow through an
    upsampling, for example to the ControlNet's middle block, are then zero. The gradient of expanding is a sum, which
    needs no such buffer.
    """

    def __init__(self, original: Upsample2D) -> None:
        super().__init__()
        self.conv = original.conv

    def forward(self, x: torch.Tensor, output_size: tuple[int, int] | None = None) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W], or one less if `output_size` (height, width) asks for it."""
        B, C, H, W = x.shape
        x = x[:, :, :, None, :, None].expand(B, C, H, 2, W, 2).reshape(B, C, 2 * H, 2 * W)
        if output_size is not None:
            x = x[:, :, : output_size[0], : output_size[1]]
        return self.conv(x)


def repeat_pixels(unet: UNet2DConditionModel) -> None:
    """Replace every upsampling of `unet`. The weights, their names and the output do not change."""
    for block in unet.up_blocks:
        if block.upsamplers is not None:
            block.upsamplers = nn.ModuleList(RepeatedUpsample(upsampler) for upsampler in block.upsamplers)

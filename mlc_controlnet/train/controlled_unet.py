"""The trained module: a UNet and the ControlNet that controls it."""

from collections.abc import Iterator

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn

from mlc_controlnet.train.config import ModelOptions
from mlc_controlnet.train.upsampling import repeat_pixels

DECODER = ("up_blocks", "conv_norm_out", "conv_out")  # the trained parts of an unlocked UNet


class ControlledUNet(nn.Module):
    """noise or velocity = UNet(x_t, t, context; ControlNet(x_t, t, context, control)), arXiv 2302.05543, section 3.2.

    Args:
        options: which parameters are trained and how the module is computed, see `ModelOptions`.
    """

    def __init__(self, controlnet: ControlNetModel, unet: UNet2DConditionModel, options: ModelOptions) -> None:
        super().__init__()
        self.controlnet, self.unet = controlnet, unet
        self.only_mid_control = options.only_mid_control
        unet.requires_grad_(False).eval()
        controlnet.requires_grad_(True).train()
        if options.only_mid_control:
            # Zero and never trained, so the result adds nothing to the skip connections in any runtime.
            for parameter in controlnet.controlnet_down_blocks.parameters():
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)
        if not options.sd_locked:
            for name in DECODER:
                unet.get_submodule(name).requires_grad_(True)
        for part in (controlnet, unet):
            part.set_attn_processor(AttnProcessor2_0() if options.use_flash_attention else AttnProcessor())
            if options.use_checkpoint:
                part.enable_gradient_checkpointing()
            if options.channels_last:
                part.to(memory_format=torch.channels_last)
        if options.inductor:
            repeat_pixels(unet)
            for part in (controlnet, unet):
                part.compile()

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, context: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """x_t [B, c, h, w], t [B], context [B, T, D], control [B, C, H, W] -> [B, c, h, w]."""
        down, mid = self.controlnet(x_t, t, context, controlnet_cond=control, return_dict=False)
        if self.only_mid_control:
            down = [torch.zeros_like(residual) for residual in down]
        return self.unet(
            x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
        )[0]

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over the names and parameters of everything that is trained."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

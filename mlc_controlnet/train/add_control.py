"""Writes the trainable copy with zero convolutions, and checks that it changes nothing yet."""

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.files import check_replaceable
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.base import load_unet, new_controlnet


def add_control(base: str, output: Path, hint_channels: int, hint_widths: tuple[int, ...], seed: int) -> Path:
    """Write a new ControlNet for the UNet of `base` to `output`, in diffusers' layout.

    Args:
        base: a folder in diffusers' layout, an original file, a bundled model's name or a hub id.
        seed: for the layers that embed the control image; all other weights are copied or zero.

    Raises:
        UserError: there is no such base model, it is one for inpainting, or `output` holds something that is not a
            ControlNet.
    """
    check_replaceable(output, _is_controlnet(output), "a ControlNet", f"--output {output.absolute()}")
    unet = load_unet(base)
    torch.manual_seed(seed)
    controlnet = new_controlnet(unet, hint_channels, hint_widths)
    assert changes_nothing(controlnet, unet), "a new ControlNet changed its UNet's output"
    return checkpoints.write_folder(output, controlnet.save_pretrained)


def _is_controlnet(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("_class_name") == ControlNetModel.__name__


@torch.no_grad()
def changes_nothing(controlnet: ControlNetModel, unet: UNet2DConditionModel) -> bool:
    """Return whether the UNet's output with the ControlNet equals the output without it, bit for bit."""
    cells = 2 ** len(unet.config.block_out_channels)  # the smallest size that every downsampling can halve
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn((1, unet.config.in_channels, cells, 2 * cells), generator=generator)
    context = torch.randn((1, 77, unet.config.cross_attention_dim), generator=generator)
    shrink = 2 ** (len(controlnet.config.conditioning_embedding_out_channels) - 1)
    size = (1, controlnet.config.conditioning_channels, shrink * cells, 2 * shrink * cells)
    control = torch.rand(size, generator=generator)
    t = torch.tensor([500])
    alone = unet(x_t, t, context).sample
    down, mid = controlnet(x_t, t, context, controlnet_cond=control, return_dict=False)
    controlled = unet(x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    return torch.equal(alone, controlled)

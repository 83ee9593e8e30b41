"""Stage three: the ControlNet for a locked base model (arXiv 2302.05543, equation 5)."""

from collections.abc import Callable

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel

from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train
from mlc_controlnet.train.config import ModelOptions
from mlc_controlnet.train.controlled_unet import ControlledUNet
from mlc_controlnet.train.diffusion import denoising_loss


def train_controlnet(
    controlnet: ControlNetModel,
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    next_batch: Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    config: LoopConfig,
    log: Callable[[str], None] = print,
    checkpointing: Checkpointing | None = None,
) -> None:
    """Train only `controlnet`; `unet` keeps its weights and is not trainable afterwards.

    Args:
        next_batch: returns latents [B, 4, h, w], context [B, T, D] and control images [B, 3, H, W] in 0..1.
    """
    model = ControlledUNet(controlnet, unet, ModelOptions())

    def loss_of_step(step: int) -> torch.Tensor:
        latents, context, control = next_batch()
        return denoising_loss(scheduler, latents, lambda x_t, t: model(x_t, t, context, control))

    train("controlnet", controlnet.parameters(), loss_of_step, config, log, checkpointing)
    controlnet.eval()

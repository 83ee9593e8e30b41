"""Stage three: the ControlNet on a locked base (arXiv 2302.05543, equation 5)."""

from collections.abc import Callable

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel

from mlc_controlnet.train.circles.loop import LoopConfig, train
from mlc_controlnet.train.diffusion import denoising_loss


def train_controlnet(
    controlnet: ControlNetModel,
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    next_batch: Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    config: LoopConfig,
    log: Callable[[str], None] = print,
) -> None:
    """Fit `controlnet` alone.

    Args:
        next_batch: gives latents [B, 4, h, w], context [B, T, D] and control images [B, 3, H, W] in 0..1.
    """
    locked = [p for p in unet.parameters() if p.requires_grad]
    for parameter in locked:
        parameter.requires_grad_(False)

    def loss_of_step(step: int) -> torch.Tensor:
        latents, context, control = next_batch()

        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            down, mid = controlnet(x_t, t, context, controlnet_cond=control, return_dict=False)
            return unet(x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample

        return denoising_loss(scheduler, latents, predict)

    controlnet.train()
    train("controlnet", controlnet.parameters(), loss_of_step, config, log)
    controlnet.eval()
    for parameter in locked:
        parameter.requires_grad_(True)

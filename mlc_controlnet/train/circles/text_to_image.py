"""Stage two: text to image. The UNet and the text encoder are trained together, on cached latents."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train
from mlc_controlnet.train.diffusion import denoising_loss


def train_text_to_image(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDIMScheduler,
    next_batch: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    config: LoopConfig,
    log: Callable[[str], None] = print,
    checkpointing: Checkpointing | None = None,
) -> None:
    """Train both.

    Args:
        next_batch: returns latents [B, 4, h, w] and token ids [B, T]; some prompts are empty.
    """

    def loss_of_step(step: int) -> torch.Tensor:
        latents, token_ids = next_batch()
        context = text_encoder(token_ids).last_hidden_state  # [B, T, D]
        return denoising_loss(scheduler, latents, lambda x_t, t: unet(x_t, t, context).sample)

    unet.train()
    text_encoder.train()
    train("text to image", [*unet.parameters(), *text_encoder.parameters()], loss_of_step, config, log, checkpointing)
    unet.eval()
    text_encoder.eval()

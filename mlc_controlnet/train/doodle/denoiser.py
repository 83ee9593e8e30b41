"""Stages two and three: the UNet with its text encoder and the ControlNet for scribbles, then the one for colours.

The first two are trained together from random weights. A base model that first learned text alone, and a ControlNet
after it, would each need as many steps; here the UNet reads the lines from the first step on. In some of the samples
the ControlNet is left out, so that the base model also draws without one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train
from mlc_controlnet.train.diffusion import denoising_loss
from mlc_controlnet.train.doodle.pictures import Encoded, Pictures, to_tensor
from mlc_controlnet.train.doodle.scribbles import color_grid, random_scribble


@dataclass(frozen=True)
class DenoiserConfig:
    """The settings of a stage.

    Attributes:
        loop: its steps and optimizer.
        batch: samples of a step.
        prompt_dropout: share of empty captions, for classifier-free guidance (arXiv 2207.12598).
        control_dropout: share of samples without the scribble's ControlNet.
    """

    loop: LoopConfig
    batch: int = 32
    prompt_dropout: float = 0.1
    control_dropout: float = 0.2


@dataclass(frozen=True)
class Samples:
    """Pictures, their latents and their captions.

    Attributes:
        token_ids: captions.  # [N, T] int64
        empty: the empty caption.  # [1, T] int64
    """

    pictures: Pictures
    encoded: Encoded
    token_ids: torch.Tensor
    empty: torch.Tensor

    def draw(self, config: DenoiserConfig) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        """Choose numbers, latents [B, c, h, w] and token ids [B, T] by torch's random numbers."""
        numbers = torch.randint(len(self.pictures), (config.batch,))
        dropped = torch.rand(config.batch, 1) < config.prompt_dropout
        token_ids = torch.where(dropped, self.empty, self.token_ids[numbers])
        return numbers.tolist(), self.encoded.latents[numbers].float(), token_ids

    def scribbles(self, numbers: list[int]) -> torch.Tensor:
        """Draw a scribble of each picture, another one every time.  # [B, 3, H, W] in 0..1"""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        drawn = (self.pictures.draw(number) for number in numbers)
        return to_tensor(np.stack([random_scribble(picture.pixels, picture.alpha, rng) for picture in drawn]))

    def colors(self, numbers: list[int]) -> torch.Tensor:
        """Return the colour grid of each picture.  # [B, 3, H, W] in 0..1"""
        return to_tensor(np.stack([color_grid(self.pictures.draw(number).pixels) for number in numbers]))


def train_with_scribbles(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    controlnet: ControlNetModel,
    scheduler: DDIMScheduler,
    samples: Samples,
    config: DenoiserConfig,
    checkpointing: Checkpointing | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train all three together."""
    parts = (unet, controlnet, text_encoder)

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, latents, token_ids = samples.draw(config)
        control = samples.scribbles(numbers)
        kept = (torch.rand(len(numbers), 1, 1, 1) >= config.control_dropout).float()
        context = text_encoder(token_ids).last_hidden_state  # [B, T, D]

        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            down, mid = controlnet(x_t, t, context, controlnet_cond=control, return_dict=False)
            residuals = [kept * residual for residual in down]  # zero: as with a conditioning scale of 0
            return _predict(unet, x_t, t, context, residuals, kept * mid)

        return denoising_loss(scheduler, latents, predict)

    for part in parts:
        part.train()
    for part in (unet, controlnet):
        part.to(memory_format=torch.channels_last)
    weights = [weight for part in parts for weight in part.parameters()]
    train("doodle", weights, loss_of_step, config.loop, log, checkpointing)
    for part in parts:
        part.eval()


def train_with_colors(
    controlnet: ControlNetModel,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scribbles: ControlNetModel,
    scheduler: DDIMScheduler,
    samples: Samples,
    config: DenoiserConfig,
    checkpointing: Checkpointing | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train only `controlnet`, in half of the steps together with the one for scribbles, so that both can be used."""
    for part in (unet, text_encoder, scribbles):
        part.requires_grad_(False).eval()

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, latents, token_ids = samples.draw(config)
        colors = samples.colors(numbers)
        lines = samples.scribbles(numbers) if step % 2 else None
        with torch.no_grad():
            context = text_encoder(token_ids).last_hidden_state

        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            down, mid = controlnet(x_t, t, context, controlnet_cond=colors, return_dict=False)
            if lines is not None:
                with torch.no_grad():
                    more, more_mid = scribbles(x_t, t, context, controlnet_cond=lines, return_dict=False)
                down, mid = [ours + theirs for ours, theirs in zip(down, more, strict=True)], mid + more_mid
            return _predict(unet, x_t, t, context, list(down), mid)

        return denoising_loss(scheduler, latents, predict)

    controlnet.train().to(memory_format=torch.channels_last)
    train("colors", controlnet.parameters(), loss_of_step, config.loop, log, checkpointing)
    controlnet.eval()


def _predict(
    unet: UNet2DConditionModel,
    x_t: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    down: list[torch.Tensor],
    mid: torch.Tensor,
) -> torch.Tensor:
    output: torch.Tensor = unet(
        x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
    )[0]
    return output

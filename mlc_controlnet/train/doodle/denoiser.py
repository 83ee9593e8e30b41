"""Trains the denoiser: the UNet, its text encoder and the ControlNet for scribbles, then the one for colours.

The first three are trained together from random weights. A base model that first learned text alone, and a ControlNet
after it, would each need as many steps; here the UNet reads the lines from the first step on. In some of the samples
the ControlNet is left out, so that the base model also draws without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from mlc_controlnet.files import whole_folder
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


def with_residuals(
    unet: UNet2DConditionModel,
    x_t: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    down: list[torch.Tensor],
    mid: torch.Tensor,
) -> torch.Tensor:
    """Return the UNet's output with residuals of ControlNets added."""
    output: torch.Tensor = unet(
        x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
    )[0]
    return output


@dataclass(frozen=True)
class Denoiser:
    """The three parts that are trained together."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    controlnet: ControlNetModel

    @staticmethod
    def load(folder: Path) -> "Denoiser":
        """Read what `save` wrote."""
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        controlnet = ControlNetModel.from_pretrained(folder / "controlnet")
        for part in (unet, controlnet):
            part.to(memory_format=torch.channels_last)
        return Denoiser(CLIPTextModel.from_pretrained(folder / "text_encoder"), unet, controlnet)

    def save(self, folder: Path) -> None:
        """Write the parts to a new folder."""
        with whole_folder(folder) as partial:
            self.text_encoder.save_pretrained(partial / "text_encoder")
            self.unet.save_pretrained(partial / "unet")
            self.controlnet.save_pretrained(partial / "controlnet")

    def parts(self) -> tuple[nn.Module, ...]:
        """Return the parts; their weights keep this order in checkpoints."""
        return self.unet, self.controlnet, self.text_encoder

    def predict(
        self,
        x_t: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        control: torch.Tensor,
        scale: float | torch.Tensor = 1.0,
    ) -> torch.Tensor:
        """Predict v of noisy latents.

        Args:
            x_t: [B, c, h, w].
            t: [B], or one for all.
            context: of the text encoder.  # [B, T, D]
            control: scribbles.  # [B, 3, H, W] in 0..1
            scale: of the ControlNet's residuals; a tensor that broadcasts to them gives each sample its own.
        """
        down, mid = self.controlnet(x_t, t, context, controlnet_cond=control, return_dict=False)
        return with_residuals(self.unet, x_t, t, context, [scale * residual for residual in down], scale * mid)

    def set_training(self, training: bool) -> None:
        """Switch all parts between training and evaluation."""
        for part in self.parts():
            part.train(training)


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
    name: str,
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    samples: Samples,
    config: DenoiserConfig,
    checkpointing: Checkpointing | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train all three parts together.

    Args:
        name: of the stage: its random numbers follow from it.
    """

    def loss_of_step(step: int) -> torch.Tensor:
        numbers, latents, token_ids = samples.draw(config)
        control = samples.scribbles(numbers)
        kept = (torch.rand(len(numbers), 1, 1, 1) >= config.control_dropout).float()
        context = denoiser.text_encoder(token_ids).last_hidden_state  # [B, T, D]

        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return denoiser.predict(x_t, t, context, control, kept)

        return denoising_loss(scheduler, latents, predict)

    denoiser.set_training(True)
    for part in (denoiser.unet, denoiser.controlnet):
        part.to(memory_format=torch.channels_last)
    weights = [weight for part in denoiser.parts() for weight in part.parameters()]
    train(name, weights, loss_of_step, config.loop, log, checkpointing)
    denoiser.set_training(False)


def train_with_colors(
    controlnet: ControlNetModel,
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    samples: Samples,
    config: DenoiserConfig,
    checkpointing: Checkpointing | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train only `controlnet`, in half of the steps together with the one for scribbles, so that both can be used."""
    unet, text_encoder, scribbles = denoiser.unet, denoiser.text_encoder, denoiser.controlnet
    for part in denoiser.parts():
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
            return with_residuals(unet, x_t, t, context, list(down), mid)

        return denoising_loss(scheduler, latents, predict)

    controlnet.train().to(memory_format=torch.channels_last)
    train("colors", controlnet.parameters(), loss_of_step, config.loop, log, checkpointing)
    controlnet.eval()

"""Computes the loss of a batch: latents, context, noise, prediction."""

from dataclasses import dataclass

import torch
from torch import nn

from mlc_controlnet.train.base import Base
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data.cache import ConditionCache
from mlc_controlnet.train.data.samples import Batch
from mlc_controlnet.train.diffusion import min_snr_weight, target_of
from mlc_controlnet.train.randomness import draw

HELD_OUT_EPOCH = -1  # held-out samples get the same noise and timesteps every time


@dataclass(frozen=True)
class Conditions:
    """The encoded batch.

    Attributes:
        moments: mean and log-variance of the latents.  # [B, 2c, h, w]
        context: text states.  # [B, T, D]
    """

    moments: torch.Tensor
    context: torch.Tensor


class Objective:
    """The loss of arXiv 2302.05543, equation 5, for each sample."""

    def __init__(self, base: Base, config: TrainConfig, device: torch.device, cache: ConditionCache | None) -> None:
        self.base, self.config, self.device, self.cache = base, config, device, cache
        self.dtype = next(base.vae.parameters()).dtype
        factor = 2 ** (len(base.vae.config.block_out_channels) - 1)
        data = config.data
        self.latent_shape = (base.vae.config.latent_channels, data.height // factor, data.width // factor)

    def losses(self, model: nn.Module, batch: Batch, held_out: bool = False) -> torch.Tensor:
        """Return each sample's squared error times its weight; 0 for a sample that could not be read.  # [B] float32

        Args:
            model: (x_t, t, context, control) -> prediction, as `ControlledUNet`.
            held_out: use the noise and timesteps of the held-out loss, every prompt, and no Min-SNR weight.
        """
        scheduler, data, gamma = self.base.scheduler, self.config.data, self.config.optim.min_snr_gamma
        epochs = [HELD_OUT_EPOCH] * len(batch.keys) if held_out else batch.epochs
        empty_share = 0.0 if held_out else data.proportion_empty_prompts
        draws = draw(
            self.config.trainer.seed,
            epochs,
            batch.keys,
            self.latent_shape,
            scheduler.config.num_train_timesteps,
            empty_share,
        )
        conditions = self._conditions(batch, draws.drops_prompt, held_out)
        noise, t = draws.noise.to(self.device), draws.t.to(self.device)
        mean, log_variance = conditions.moments.float().chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))  # diffusers' DiagonalGaussianDistribution
        x_0 = (mean + std * draws.posterior.to(self.device)) * self.base.vae.config.scaling_factor  # [B, c, h, w]
        x_t = scheduler.add_noise(x_0, noise, t)
        control = batch.control.to(self.device)
        if self.config.model.channels_last:
            x_t = x_t.contiguous(memory_format=torch.channels_last)
            control = control.contiguous(memory_format=torch.channels_last)
        predicted = model(x_t.to(self.dtype), t, conditions.context, control.to(self.dtype))
        error = (predicted.float() - target_of(scheduler, x_0, noise, t)).square().mean(dim=(1, 2, 3))  # [B]
        weight = batch.weight.to(self.device)
        if gamma is not None and not held_out:
            weight = weight * min_snr_weight(scheduler, t, gamma)
        return torch.where(weight > 0, error * weight, torch.zeros_like(error))

    def _conditions(self, batch: Batch, drops_prompt: list[bool], held_out: bool) -> Conditions:
        prompts = ["" if drop else prompt for prompt, drop in zip(batch.prompts, drops_prompt, strict=True)]
        if self.cache is not None and not held_out:
            moments, context = self.cache.lookup(batch.indices, prompts)
            return Conditions(moments.to(self.device), context.to(self.device))
        with torch.no_grad():
            return Conditions(
                encode_pictures(self.base, batch.pixels.to(self.device)),
                encode_prompts(self.base, prompts, self.device),
            )


def encode_pictures(base: Base, pixels: torch.Tensor) -> torch.Tensor:
    """Return mean and log-variance of the unscaled latents.  # [B, 3, H, W] in -1..1 -> [B, 2c, h, w]"""
    dtype = next(base.vae.parameters()).dtype
    return base.vae.encode(pixels.to(dtype)).latent_dist.parameters


def encode_prompts(base: Base, prompts: list[str], device: torch.device) -> torch.Tensor:
    """Return the text encoder's last hidden states.  # [B, T, D]"""
    ids = base.tokenizer(
        prompts,
        padding="max_length",
        max_length=base.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return base.text_encoder(ids.to(device)).last_hidden_state

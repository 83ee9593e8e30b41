"""The target of the prediction at a random timestep, and the weight of its error."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler


def denoising_loss(
    scheduler: DDIMScheduler, latents: torch.Tensor, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return the mean squared error of `predict(x_t, t)` at uniform timesteps.

    Args:
        latents: x_0, scaled to unit variance.  # [B, 4, h, w]
        predict: the model with its conditions bound.
    """
    noise = torch.randn_like(latents)
    t = torch.randint(0, scheduler.config.num_train_timesteps, latents.shape[:1])  # [B]
    x_t = scheduler.add_noise(latents, noise, t)
    return F.mse_loss(predict(x_t, t), target_of(scheduler, latents, noise, t))


def target_of(scheduler: DDIMScheduler, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the noise eps, or for v-prediction sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (arXiv 2202.00512, appendix D).

    # all [B, c, h, w], t [B]
    """
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, t)
    return noise


def min_snr_weight(scheduler: DDIMScheduler, t: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return Min-SNR-gamma weights (arXiv 2303.09556, section 3.4).  # [B] -> [B]

    min(snr, gamma) / snr for noise, min(snr, gamma) / (snr + 1) for v, with snr = abar_t / (1 - abar_t). At zero
    signal, which zero-terminal-SNR schedules reach, the first is 1 and the second is 0.
    """
    abar = scheduler.alphas_cumprod.to(t.device)[t]
    snr = abar / (1 - abar)
    if scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1.0)

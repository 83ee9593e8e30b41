"""What the model has to predict at a random timestep: the half of the loss that stages two and three share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler


def denoising_loss(
    scheduler: DDIMScheduler, latents: torch.Tensor, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Mean squared error of `predict(x_t, t)` at uniform timesteps.

    Args:
        latents: x_0, scaled to unit variance.  # [B, 4, h, w]
        predict: the model, conditions already bound.

    The target is the noise eps, or with v-prediction sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (arXiv 2202.00512,
    section 4 and appendix D).
    """
    noise = torch.randn_like(latents)
    t = torch.randint(0, scheduler.config.num_train_timesteps, latents.shape[:1])  # [B]
    x_t = scheduler.add_noise(latents, noise, t)
    predicts_v = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, t) if predicts_v else noise
    return F.mse_loss(predict(x_t, t), target)

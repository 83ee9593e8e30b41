"""Stage one: the autoencoder, on pictures alone."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from mlc_controlnet.train.circles.loop import LoopConfig, train

KL_WEIGHT = 1e-6  # latent diffusion's own value, arXiv 2112.10752, appendix G


def train_vae(
    vae: AutoencoderKL,
    next_pictures: Callable[[], torch.Tensor],
    config: LoopConfig,
    log: Callable[[str], None] = print,
) -> None:
    """Fit `vae` to the pictures that `next_pictures` gives ([B, 3, H, W] float32 in -1..1), L1 and a little KL."""

    def loss_of_step(step: int) -> torch.Tensor:
        pictures = next_pictures()
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        return F.l1_loss(decoded, pictures) + KL_WEIGHT * posterior.kl().mean()

    vae.train()
    train("vae", vae.parameters(), loss_of_step, config, log)
    vae.eval()


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """The factor that gives latents unit variance: diffusers' `scaling_factor` (arXiv 2112.10752, section D.1)."""
    return 1.0 / vae.encode(pictures).latent_dist.mean.std().item()

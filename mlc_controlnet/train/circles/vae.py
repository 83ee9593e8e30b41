"""Stage one: the autoencoder, which is trained on pictures only."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train

KL_WEIGHT = 1e-6  # latent diffusion's own value, arXiv 2112.10752, appendix G


def train_vae(
    vae: AutoencoderKL,
    next_pictures: Callable[[], torch.Tensor],
    config: LoopConfig,
    log: Callable[[str], None] = print,
    checkpointing: Checkpointing | None = None,
) -> None:
    """Train `vae` on the pictures that `next_pictures` returns. The loss is L1 and a small KL term.

    Args:
        next_pictures: returns pictures in -1..1.  # [B, 3, H, W] float32
    """

    def loss_of_step(step: int) -> torch.Tensor:
        pictures = next_pictures()
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        return F.l1_loss(decoded, pictures) + KL_WEIGHT * posterior.kl().mean()

    vae.train()
    train("vae", vae.parameters(), loss_of_step, config, log, checkpointing)
    vae.eval()


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Return the factor that gives latents unit variance: `scaling_factor` (arXiv 2112.10752, section D.1)."""
    return 1.0 / vae.encode(pictures).latent_dist.mean.std().item()

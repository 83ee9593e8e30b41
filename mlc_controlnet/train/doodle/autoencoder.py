"""Trains the autoencoder: on crops at first, then on whole pictures, and at the end the decoder alone.

The decoder learns last to read latents that the denoiser made. A decoder that only ever saw the encoder's turns their
small errors into patches of other colours; the encoder stays as it is, and with it the latents and the denoiser.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL

from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train
from mlc_controlnet.train.doodle.artworks import SIZE
from mlc_controlnet.train.doodle.pictures import Encoded, Pictures, to_tensor
from mlc_controlnet.train.doodle.redrawn import Redrawn

KL_WEIGHT = 1e-6  # latent diffusion's own value, arXiv 2112.10752, appendix G
EDGE_WEIGHT = 1.0  # of the error of differences between neighbours: without it, lines of a pixel blur first
CROP = 64  # pixels of a side


@dataclass(frozen=True)
class VaeConfig:
    """The stage's two parts.

    Attributes:
        crops: on random crops.
        whole: on whole pictures, a quarter as many at once.
        batch: crops of a step.
    """

    crops: LoopConfig
    whole: LoopConfig
    batch: int = 32


@dataclass(frozen=True)
class DecoderConfig:
    """The last stage, of the decoder alone.

    Attributes:
        loop: its steps and optimizer.
        batch: pictures of a step, half of them redrawn by the denoiser.
        redrawn: pictures that the denoiser redraws.
        last: steps of its sampling, from the last, that redraw a picture.
        guidance_scale: of the redrawing; rather large, so that its errors are, too.
    """

    loop: LoopConfig
    batch: int = 8
    redrawn: int = 1536
    last: int = 7
    guidance_scale: float = 3.0


def reconstruction_loss(decoded: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of the pixels and of their differences to the right and below.

    # both [B, 3, H, W] in -1..1
    """
    error = decoded - pictures
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return error.abs().mean() + EDGE_WEIGHT * (across.abs().mean() + down.abs().mean())


def train_vae(
    vae: AutoencoderKL,
    pictures: Pictures,
    config: VaeConfig,
    checkpointing: Callable[[str], Checkpointing],
    log: Callable[[str], None] = print,
) -> None:
    """Train `vae`, and set its scaling factor so that latents have unit variance.

    Args:
        checkpointing: gives the checkpoints of a part by its name.
    """
    vae.to(memory_format=torch.channels_last)
    for name, part, side, batch in (
        ("vae crops", config.crops, CROP, config.batch),
        ("vae whole", config.whole, SIZE, max(config.batch // 4, 1)),
    ):

        def loss_of_step(step: int, side: int = side, batch: int = batch) -> torch.Tensor:
            crops = random_crops(pictures, batch, side)
            posterior = vae.encode(crops).latent_dist
            loss = reconstruction_loss(vae.decode(posterior.sample()).sample, crops)
            return loss + KL_WEIGHT * posterior.kl().mean()

        vae.train()
        train(name, vae.parameters(), loss_of_step, part, log, checkpointing(name))
    vae.eval()
    torch.manual_seed(pictures.seed)
    with torch.no_grad():
        latents = vae.encode(random_crops(pictures, 64, SIZE)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))


def train_decoder(
    vae: AutoencoderKL,
    pictures: Pictures,
    encoded: Encoded,
    redrawn: Redrawn,
    config: DecoderConfig,
    checkpointing: Checkpointing,
    log: Callable[[str], None] = print,
) -> None:
    """Train the decoder of `vae` on latents of the encoder and of the denoiser, by turns in each batch."""
    vae.requires_grad_(False).to(memory_format=torch.channels_last)
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for weight in weights:
        weight.requires_grad_(True)

    def loss_of_step(step: int) -> torch.Tensor:
        places = torch.randint(len(redrawn.numbers), (config.batch - config.batch // 2,))
        plain = torch.randint(len(pictures), (config.batch // 2,))
        latents = torch.cat([redrawn.latents[places], encoded.latents[plain]]).float()
        numbers = torch.cat([redrawn.numbers[places], plain]).tolist()
        wanted = 2 * to_tensor(np.stack([pictures.draw(number).pixels for number in numbers])) - 1
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
        return reconstruction_loss(decoded, wanted.contiguous(memory_format=torch.channels_last))

    vae.train()
    train("decoder", weights, loss_of_step, config.loop, log, checkpointing)
    vae.requires_grad_(True).eval()


def random_crops(pictures: Pictures, count: int, side: int) -> torch.Tensor:
    """Draw crops of pictures by torch's random numbers.  # [B, 3, side, side] in -1..1, channels last"""
    numbers = torch.randint(len(pictures), (count,)).tolist()
    corners = torch.randint(SIZE - side + 1, (count, 2)).tolist()
    crops = [
        pictures.draw(number).pixels[top : top + side, left : left + side]
        for number, (top, left) in zip(numbers, corners, strict=True)
    ]
    return (2 * to_tensor(np.stack(crops)) - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def reconstruction(vae: AutoencoderKL, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what remains of pictures, and the mean absolute error in 0..1.  # [B, H, W, 3] uint8 -> the same"""
    wanted = to_tensor(pixels)
    decoded = vae.decode(vae.encode(2 * wanted - 1).latent_dist.mean).sample.clamp(-1, 1) / 2 + 0.5
    error = (decoded - wanted).abs().mean().item()
    return np.rint(255 * decoded.permute(0, 2, 3, 1).numpy()).astype(np.uint8), error

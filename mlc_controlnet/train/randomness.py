"""Draws everything random about a sample from the run's seed, the epoch and the sample's key alone.

So a checkpoint needs no state of a random number generator. A run that is killed and resumed, a run with other
processes or batches, and a run that reads latents from a cache draw the same numbers for the same sample.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch.

    Attributes:
        noise: standard normal, eps of the forward process.  # [B, c, h, w]
        posterior: standard normal, for the sample of the VAE's posterior.  # [B, c, h, w]
        t: uniform timesteps, 0 to T - 1.  # [B] int64
        drops_prompt: which prompts are replaced by the empty one.
    """

    noise: torch.Tensor
    posterior: torch.Tensor
    t: torch.Tensor
    drops_prompt: list[bool]


def seed_of(*parts: object) -> int:
    """Return 63 bits that depend only on the parts, not on the machine or on Python's hash seed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw(
    seed: int,
    epochs: Sequence[int],
    keys: Sequence[str],
    latent_shape: tuple[int, int, int],
    timesteps: int,
    empty_share: float,
) -> Draws:
    """Draw the random numbers of the samples `keys` in `epochs`, on the CPU, so that all devices get the same.

    Args:
        latent_shape: (c, h, w).
        timesteps: T of the scheduler.
        empty_share: share of prompts that are dropped, 0 to 1.
    """
    normals, t, drops = [], [], []
    for epoch, key in zip(epochs, keys, strict=True):
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, key))
        normals.append(torch.randn((2, *latent_shape), generator=generator))
        t.append(torch.randint(timesteps, (), generator=generator))
        drops.append(bool(torch.rand((), generator=generator) < empty_share))
    both = torch.stack(normals)  # [B, 2, c, h, w]
    return Draws(both[:, 0], both[:, 1], torch.stack(t), drops)

"""All that is random about a sample, from nothing but the run's seed, the epoch and the sample's key.

No random number generator has a state that a checkpoint would have to keep: a run that is killed and resumed, one with
other processes or batches, and one that reads latents from a cache all draw the same numbers for the same sample.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Draws:
    """Of a batch.

    Attributes:
        noise: standard normal, eps of the forward process.  # [B, c, h, w]
        posterior: standard normal, for the draw from the VAE's posterior.  # [B, c, h, w]
        t: uniform timesteps, 0 to T - 1.  # [B] int64
        drops_prompt: which prompts are replaced by the empty one.
    """

    noise: torch.Tensor
    posterior: torch.Tensor
    t: torch.Tensor
    drops_prompt: list[bool]


def seed_of(*parts: object) -> int:
    """63 bits that depend on every part and on nothing else: not on the machine, not on Python's hash seed."""
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
    """Draw for the samples `keys` of `epochs`, on the CPU, whatever the device: numbers that all devices share.

    latent_shape: (c, h, w). timesteps: T of the scheduler. empty_share: of prompts that are dropped, 0 to 1.
    """
    normals, t, drops = [], [], []
    for epoch, key in zip(epochs, keys, strict=True):
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, key))
        normals.append(torch.randn((2, *latent_shape), generator=generator))
        t.append(torch.randint(timesteps, (), generator=generator))
        drops.append(bool(torch.rand((), generator=generator) < empty_share))
    both = torch.stack(normals)  # [B, 2, c, h, w]
    return Draws(both[:, 0], both[:, 1], torch.stack(t), drops)

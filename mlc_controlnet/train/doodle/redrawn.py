"""Lets the denoiser redraw the pictures that it was trained on, so that the decoder learns to read its latents.

Real latents get the noise of a timestep in the last third of sampling and are denoised from there, with the settings
that the model recommends. The result shows the same picture, in latents as sampling leaves them: nearly right.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler

from mlc_controlnet.files import whole_folder
from mlc_controlnet.train.doodle.denoiser import Denoiser, Samples
from mlc_controlnet.train.randomness import seed_of

_PART = 256  # pictures of a part: what a kill can lose
_BATCH = 32


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
        steps: from noise to picture.
        last: so many of them are taken, from real latents with the noise of the first of these.
        guidance_scale: of the caption.
        conditioning_scale: of the ControlNet.
    """

    steps: int
    last: int
    guidance_scale: float
    conditioning_scale: float


@dataclass(frozen=True)
class Redrawn:
    """Numbers of pictures, and the latents that sampling made of them.

    Attributes:
        numbers: as `Pictures` counts.  # [N] int64
        latents: scaled to unit variance.  # [N, c, h, w] float16
    """

    numbers: torch.Tensor
    latents: torch.Tensor


def redraw(
    folder: Path,
    count: int,
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    samples: Samples,
    sampling: Sampling,
    seed: int,
    stop: Callable[[], None],
    log: Callable[[str], None] = print,
) -> Redrawn:
    """Redraw `count` pictures, in parts that are kept in `folder`.

    Args:
        stop: called before each part; it may raise to end the run.
    """
    torch.manual_seed(seed_of(seed, "redrawn"))
    numbers = torch.randint(len(samples.pictures), (count,))
    started, drawn, parts = time.monotonic(), 0, []
    for first in range(0, count, _PART):
        file = folder / f"part-{first:07d}" / "latents.npy"
        if not file.is_file():
            stop()
            torch.manual_seed(seed_of(seed, "redrawn", first))
            chosen = numbers[first : first + _PART].split(_BATCH)
            latents = torch.cat([_redraw(part, denoiser, scheduler, samples, sampling) for part in chosen])
            with whole_folder(file.parent) as partial:
                np.save(partial / file.name, latents.half().numpy())
            drawn += len(latents)
            log(f"redrawn: {first + len(latents)}/{count}, {drawn / (time.monotonic() - started):.0f} pictures/s")
        parts.append(torch.from_numpy(np.load(file)))
    return Redrawn(numbers, torch.cat(parts))


@torch.no_grad()
def _redraw(
    numbers: torch.Tensor, denoiser: Denoiser, scheduler: DDIMScheduler, samples: Samples, sampling: Sampling
) -> torch.Tensor:
    token_ids = torch.cat([samples.empty.expand(len(numbers), -1), samples.token_ids[numbers]])
    context = denoiser.text_encoder(token_ids).last_hidden_state
    control = samples.scribbles(numbers.tolist()).repeat(2, 1, 1, 1)
    scheduler.set_timesteps(sampling.steps)
    timesteps = scheduler.timesteps[-sampling.last :]
    latents = samples.encoded.latents[numbers].float()
    latents = scheduler.add_noise(latents, torch.randn_like(latents), timesteps[:1].expand(len(numbers)))
    for t in timesteps:
        both = torch.cat([latents, latents])
        plain, told = denoiser.predict(both, t, context, control, sampling.conditioning_scale).chunk(2)
        latents = scheduler.step(plain + sampling.guidance_scale * (told - plain), t, latents).prev_sample
    return latents

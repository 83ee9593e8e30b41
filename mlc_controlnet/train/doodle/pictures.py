"""The pictures that training uses: every variant of every artwork of the training split, by its number."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from mlc_controlnet.files import whole_folder
from mlc_controlnet.train.doodle.artworks import Artwork, ArtworkSet
from mlc_controlnet.train.doodle.captions import random_caption
from mlc_controlnet.train.doodle.variants import Picture, Variant, draw, random_variant

_PART = 2048  # pictures of a part of the latents: what a kill can lose


@dataclass(frozen=True)
class Pictures:
    """Pictures by their number, `variants` of them for each artwork in `rows`.

    Nothing but the artworks is kept: a number always gives the same picture.
    """

    artworks: ArtworkSet
    rows: list[int]
    variants: int
    seed: int

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows) * self.variants

    def describe(self, number: int) -> tuple[int, Artwork, Variant]:
        """Return the row, the artwork and the variant of a picture. The first variant is the artwork as it is."""
        row, variant = self.rows[number // self.variants], number % self.variants
        artwork = self.artworks.artworks[row]
        plain = Variant(words=row)
        return row, artwork, random_variant(self.seed, artwork, variant) if variant else plain

    def draw(self, number: int) -> Picture:
        """Draw a picture."""
        row, _, variant = self.describe(number)
        return draw(self.artworks.pixels[row], variant)


@dataclass(frozen=True)
class Encoded:
    """What the base model is trained on, by the numbers of `Pictures`.

    Attributes:
        latents: scaled latent means.  # [N, c, h, w] float16
        captions: a text each.
    """

    latents: torch.Tensor
    captions: list[str]


def encode(
    folder: Path, pictures: Pictures, vae: AutoencoderKL, stop: Callable[[], None], log: Callable[[str], None] = print
) -> Encoded:
    """Encode every picture, in parts that are kept in `folder`.

    Args:
        stop: called before each part; it may raise to end the run.
    """
    started, drawn = time.monotonic(), 0
    parts = range(0, len(pictures), _PART)
    for first in parts:
        part = folder / f"part-{first:07d}"
        if not part.is_dir():
            stop()
            numbers = range(first, min(first + _PART, len(pictures)))
            _encode_part(part, pictures, numbers, vae)
            drawn += len(numbers)
            pace = drawn / (time.monotonic() - started)
            log(f"latents: {numbers[-1] + 1}/{len(pictures)}, {pace:.0f} pictures/s")
    latents, captions = [], []
    for first in parts:
        part = folder / f"part-{first:07d}"
        latents.append(torch.from_numpy(np.load(part / "latents.npy")))
        captions += json.loads((part / "captions.json").read_text(encoding="utf-8"))
    return Encoded(torch.cat(latents), captions)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """[B, H, W, 3] uint8 -> [B, 3, H, W] float32 in 0..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def _encode_part(part: Path, pictures: Pictures, numbers: range, vae: AutoencoderKL, batch: int = 32) -> None:
    latents, captions = [], []
    for first in range(0, len(numbers), batch):
        chosen = numbers[first : first + batch]
        drawn = [pictures.draw(number) for number in chosen]
        for number, picture in zip(chosen, drawn, strict=True):
            _, artwork, variant = pictures.describe(number)
            captions.append(random_caption(artwork, picture, variant))
        pixels = 2 * to_tensor(np.stack([picture.pixels for picture in drawn])) - 1
        latents.append((vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor).half().numpy())
    with whole_folder(part) as partial:
        np.save(partial / "latents.npy", np.concatenate(latents))
        (partial / "captions.json").write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")

"""The held-out pictures that a model is judged by, and what it draws for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.train.doodle.artworks import ArtworkSet, Split
from mlc_controlnet.train.doodle.captions import full_caption
from mlc_controlnet.train.doodle.quality import Case
from mlc_controlnet.train.doodle.scribbles import plain_scribble
from mlc_controlnet.train.doodle.variants import draw, random_variant

_BATCH = 16
_JUDGED = 1_000_000  # the number of the variant that is judged: training has none that is so large


@dataclass(frozen=True)
class Judged:
    """The cases, one for each thing.

    Attributes:
        things: things that the model does not know.
        pictures: unknown pictures of things that it knows in other styles.
        rows: the artworks of both.
    """

    things: list[Case]
    pictures: list[Case]
    rows: list[int]

    def pixels(self) -> np.ndarray:
        """Return the pictures of all cases.  # [N, H, W, 3] uint8"""
        return np.stack([case.picture.pixels for case in (*self.pictures, *self.things)])


def judged_cases(artworks: ArtworkSet, split: Split, seed: int) -> Judged:
    """Choose one artwork of every held-out thing, and take all held-out pictures, each in its own hues."""
    rng = np.random.default_rng([seed, 64])
    by_thing: dict[str, list[int]] = {}
    for row in split.things:
        by_thing.setdefault(artworks.artworks[row].thing, []).append(row)
    chosen = [int(rng.choice(rows)) for rows in by_thing.values()]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]  # the set's order is CLDR's: faces come first
    others = [split.pictures[i] for i in rng.permutation(len(split.pictures))]
    return Judged(
        [_case(artworks, row, seed) for row in chosen],
        [_case(artworks, row, seed) for row in others],
        [*chosen, *others],
    )


@torch.no_grad()
def draw_cases(
    pipeline: StableDiffusionControlNetPipeline,
    cases: Sequence[Case],
    steps: int,
    guidance_scale: float,
    conditioning_scale: float = 1.0,
) -> list[np.ndarray]:
    """Draw a picture for the scribble and the caption of every case, always from the same noise.

    Returns [H, W, 3] uint8 each.
    """
    pipeline.set_progress_bar_config(disable=True)
    drawn: list[np.ndarray] = []
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        result = pipeline(
            prompt=[case.caption for case in batch],
            image=[Image.fromarray(case.scribble) for case in batch],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            controlnet_conditioning_scale=conditioning_scale,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(batch))],
        )
        drawn += [np.array(image) for image in result.images]
    return drawn


def _case(artworks: ArtworkSet, row: int, seed: int) -> Case:
    artwork = artworks.artworks[row]
    variant = replace(random_variant(seed, artwork, _JUDGED), hue=0.0)
    picture = draw(artworks.pixels[row], variant)
    return Case(artwork, picture, plain_scribble(picture.pixels), full_caption(artwork, picture))

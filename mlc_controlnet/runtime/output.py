"""What a pipeline returns: finished pictures, and how they were made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mlc_controlnet.runtime.request import Settings

OUTPUT_TYPES = ("pil", "np", "latent")


@dataclass(frozen=True)
class GeneratedImage:
    """One finished picture and how it was made."""

    image: Image.Image
    latents: np.ndarray  # float32 [1, C, h, w]: what the picture was decoded from
    settings: Settings  # complete: the defaults and the seed are filled in
    notices: tuple[str, ...]  # how the inputs were changed: a prompt that was cut, a control image that was scaled
    metadata: dict[str, str]  # for the PNG file


@dataclass(frozen=True)
class PipelineOutput:
    """The finished pictures of one call.

    Attributes:
        images: PIL pictures; with output_type `np`, float32 [N, H, W, 3] in 0..1; with `latent`, float32 [N, C, h, w].
        generated: every picture and how it was made.
    """

    images: Any
    generated: list[GeneratedImage]

    @property
    def settings(self) -> Settings:
        """The settings of the first picture."""
        return self.generated[0].settings

    @property
    def notices(self) -> tuple[str, ...]:
        """The notices of all pictures, each once."""
        return tuple(dict.fromkeys(notice for picture in self.generated for notice in picture.notices))

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the first picture."""
        return self.generated[0].metadata


def as_output_type(generated: Sequence[GeneratedImage], output_type: str) -> Any:
    """Return the pictures as `PipelineOutput.images` describes them."""
    if output_type == "latent":
        return np.concatenate([picture.latents for picture in generated])
    images = [picture.image for picture in generated]
    return images if output_type == "pil" else np.stack([np.asarray(image, np.float32) / 255 for image in images])

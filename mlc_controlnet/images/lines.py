"""Line drawings: most ControlNets for lines want white lines on black, most people draw black lines on white."""

import numpy as np
from PIL import Image, ImageOps

from mlc_controlnet.images.prepare import to_mode, upright

_LIGHT, _DARK = 0.75, 0.5  # of white: paper is lighter than the first, a line darker than the second
_PAPER_SHARE = 0.75  # of all pixels, at least
_MAX_COLOR = 0.25  # the difference between the largest and the smallest channel of a grey pixel, at most


def invert(image: Image.Image, subject: str = "control image") -> Image.Image:
    """Exchange black and white: dark lines on white paper, or on a transparent background, become white lines on black.

    The result is upright and RGB. Raises UserError as `prepare_image` does.
    """
    picture, _ = to_mode(upright(image, subject), "RGB", subject, background="white")
    return ImageOps.invert(picture)


def looks_inverted(array: np.ndarray) -> bool:
    """Return whether a picture looks like dark lines on white paper: grey, mostly white, with something dark.

    array: float32 [..., 3, H, W] in 0..1. Photographs, depth maps and colored maps are not meant to match.
    """
    low, high = array.min(axis=-3), array.max(axis=-3)
    is_grey = bool((high - low <= _MAX_COLOR).all())
    return is_grey and bool((low >= _LIGHT).mean() >= _PAPER_SHARE) and bool(high.min() < _DARK)

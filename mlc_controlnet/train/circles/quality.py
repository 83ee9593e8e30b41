"""Measure whether the disc fills the outline and whether both colours are those that the prompt names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_controlnet.train.circles.colors import COLORS, nearest_color
from mlc_controlnet.train.circles.drawing import Circle, disc_mask


@dataclass(frozen=True)
class Quality:
    """Shares and means over a set of pictures, all in 0..1.

    Attributes:
        fill_accuracy: the share of pictures whose disc is nearest to the named fill.
        background_accuracy: the share of pictures whose background is nearest to the named background.
        mean_iou: the mean of `disc_iou`.
    """

    fill_accuracy: float
    background_accuracy: float
    mean_iou: float

    def __str__(self) -> str:
        return f"fill {self.fill_accuracy:.1%}, background {self.background_accuracy:.1%}, mean IoU {self.mean_iou:.3f}"


def disc_iou(picture: np.ndarray, circle: Circle) -> float:
    """Return the intersection over union of the drawn disc and the outline's disc, in 0..1.

    A pixel of `picture` ([H, H, 3] uint8) counts as drawn if it is nearer to the named fill than to the named
    background.
    """
    pixels = picture.astype(np.float64)
    to_fill = np.linalg.norm(pixels - np.array(COLORS[circle.fill]), axis=-1)
    to_background = np.linalg.norm(pixels - np.array(COLORS[circle.background]), axis=-1)
    drawn, wanted = to_fill < to_background, disc_mask(circle, picture.shape[0])
    return float((drawn & wanted).sum() / max((drawn | wanted).sum(), 1))


def measure(pictures: Sequence[np.ndarray], circles: Sequence[Circle]) -> Quality:
    """Compare `pictures` ([H, H, 3] uint8 each) with the circles whose outline and prompt they were made from.

    Raises:
        ValueError: there are not as many pictures as circles.
    """
    fills, backgrounds, ious = [], [], []
    for picture, circle in zip(pictures, circles, strict=True):
        inside = disc_mask(circle, picture.shape[0])
        fills.append(nearest_color(np.median(picture[inside], axis=0)) == circle.fill)
        backgrounds.append(nearest_color(np.median(picture[~inside], axis=0)) == circle.background)
        ious.append(disc_iou(picture, circle))
    return Quality(float(np.mean(fills)), float(np.mean(backgrounds)), float(np.mean(ious)))

"""Is the disc where the outline was, in the colours the prompt named?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_controlnet.train.circles.colors import COLORS, nearest_color
from mlc_controlnet.train.circles.drawing import Circle, disc_mask


@dataclass(frozen=True)
class Quality:
    """Shares and means over a set of pictures."""

    fill_accuracy: float  # share whose disc is nearest to the named fill
    background_accuracy: float  # share whose ground is nearest to the named background
    mean_iou: float  # of the pixels nearer to the named fill with the outline's disc

    def __str__(self) -> str:
        return f"fill {self.fill_accuracy:.1%}, background {self.background_accuracy:.1%}, mean IoU {self.mean_iou:.3f}"


def disc_iou(picture: np.ndarray, circle: Circle) -> float:
    """Intersection over union of the drawn disc and the outline's disc.

    A pixel of `picture` ([H, W, 3] uint8) counts as drawn when it is nearer to the named fill than to the named
    background.
    """
    pixels = picture.astype(np.float64)
    to_fill = np.linalg.norm(pixels - np.array(COLORS[circle.fill]), axis=-1)
    to_background = np.linalg.norm(pixels - np.array(COLORS[circle.background]), axis=-1)
    drawn, wanted = to_fill < to_background, disc_mask(circle, picture.shape[0])
    return float((drawn & wanted).sum() / max((drawn | wanted).sum(), 1))


def measure(pictures: Sequence[np.ndarray], circles: Sequence[Circle]) -> Quality:
    """Judge `pictures` ([H, W, 3] uint8 each) by the circles they were asked for."""
    fills, backgrounds, ious = [], [], []
    for picture, circle in zip(pictures, circles, strict=True):
        inside = disc_mask(circle, picture.shape[0])
        fills.append(nearest_color(np.median(picture[inside], axis=0)) == circle.fill)
        backgrounds.append(nearest_color(np.median(picture[~inside], axis=0)) == circle.background)
        ious.append(disc_iou(picture, circle))
    return Quality(float(np.mean(fills)), float(np.mean(backgrounds)), float(np.mean(ious)))

"""Measures what a model draws from held-out scribbles: its edges, its colours, and what the judge sees in it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mlc_controlnet.train.doodle.artworks import Artwork
from mlc_controlnet.train.doodle.colors import main_colors, name_of
from mlc_controlnet.train.doodle.judge import Judge, Retrieval
from mlc_controlnet.train.doodle.scribbles import edges, plain_lines
from mlc_controlnet.train.doodle.variants import OPAQUE, Picture

TOLERANCE = 2  # pixels between a line of the scribble and an edge of the result
_BORDER = 3  # pixels at the picture's sides that show the ground
_GROUND_DISTANCE = 40  # of 255, in a channel: what differs more from the ground belongs to the thing


@dataclass(frozen=True)
class Case:
    """A held-out picture and the control images and the caption that the model gets in its place.

    Attributes:
        scribble: [H, W, 3] uint8.
    """

    artwork: Artwork
    picture: Picture
    scribble: np.ndarray
    caption: str


@dataclass(frozen=True)
class Quality:
    """Means over cases, all in 0..1.

    Attributes:
        recall: share of the scribble's lines that have an edge of the result within `TOLERANCE`.
        color: share of pictures whose most common colour, where the thing is, is one that the caption names.
        first_color: the same for the caption's first colour, the drawing's most common one. Of two named colours with
            nearly equal areas, either may come out first.
        ground: share of pictures on the ground that the caption names.
        drawn, real: what the judge retrieves from the drawn pictures, and from the held-out pictures themselves.
    """

    recall: float
    color: float
    first_color: float
    ground: float
    drawn: Retrieval
    real: Retrieval

    def __str__(self) -> str:
        return (
            f"edge recall {self.recall:.3f}, main colour {self.color:.1%} (the first named {self.first_color:.1%}), "
            f"ground {self.ground:.1%}, "
            f"judge on drawn pictures: {self.drawn}; on real ones: {self.real}"
        )

    def as_dict(self) -> dict[str, object]:
        """Return the figures for a JSON file."""
        return asdict(self)


def edge_recall(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of lines that have an edge of a picture near them, in 0..1.

    Args:
        drawn: the picture.  # [H, W, 3] uint8
        wanted: lines, one pixel wide.  # [H, W] uint8, 0 or 255
    """
    import cv2

    distance = cv2.distanceTransform(np.where(edges(drawn) > 0, 0, 255).astype(np.uint8), cv2.DIST_L2, 5)
    lines = wanted > 0
    return float((distance[lines] <= TOLERANCE).mean()) if lines.any() else 1.0


def ground_of(drawn: np.ndarray) -> np.ndarray:
    """Return the median colour along the sides.  # [H, W, 3] uint8 -> [3] uint8"""
    inside = np.zeros(drawn.shape[:2], bool)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    return np.median(drawn[~inside], axis=0).astype(np.uint8)


def color_of(drawn: np.ndarray, alpha: np.ndarray | None = None) -> str | None:
    """Return the name of a thing's most common colour; None for a plain picture.

    Args:
        drawn: [H, W, 3] uint8.
        alpha: where the thing is; None: where the picture differs from its ground.  # [H, W] uint8
    """
    differs = np.abs(drawn.astype(np.int16) - ground_of(drawn)).max(-1) > _GROUND_DISTANCE
    names = main_colors(drawn[differs if alpha is None else alpha >= OPAQUE], most=1)
    return names[0] if names else None


def measure(drawn: Sequence[np.ndarray], cases: Sequence[Case], judge: Judge) -> Quality:
    """Compare drawn pictures ([H, W, 3] uint8 each) with the cases that they were drawn for.

    Raises:
        ValueError: there are not as many pictures as cases.
    """
    pairs = list(zip(drawn, cases, strict=True))
    things = [case.artwork.thing for case in cases]
    colors = [(color_of(picture, case.picture.alpha), case.picture.colors) for picture, case in pairs]
    return Quality(
        recall=float(np.mean([edge_recall(picture, plain_lines(case.picture.pixels)) for picture, case in pairs])),
        color=float(np.mean([color in named for color, named in colors])),
        first_color=float(np.mean([color == named[0] for color, named in colors])),
        ground=float(np.mean([name_of(ground_of(picture)) == case.picture.ground for picture, case in pairs])),
        drawn=judge.retrieve(drawn, things),
        real=judge.retrieve([case.picture.pixels for case in cases], things),
    )

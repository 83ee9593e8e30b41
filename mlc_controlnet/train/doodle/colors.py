"""Names the main colours of a drawing, as its caption and its judgement use them.

A name has one or more anchors, and a pixel has the name of the nearest anchor in CIE L*a*b*. The anchors are common
tones of drawings, so that a name means what people call the colour; CSS keywords would name exact tones.
"""

import functools
from collections.abc import Sequence

import numpy as np

COLORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "white": ((252, 252, 252), (228, 234, 238)),
    "gray": ((185, 190, 195), (130, 136, 142), (88, 92, 98)),
    "black": ((12, 12, 14), (45, 45, 50)),
    "red": ((228, 40, 50), (175, 25, 40)),
    "orange": ((252, 150, 40), (240, 105, 30)),
    "yellow": ((255, 215, 60), (250, 240, 120)),
    "green": ((90, 175, 70), (40, 115, 55), (165, 215, 90)),
    "teal": ((25, 165, 155), (15, 105, 110)),
    "light blue": ((120, 205, 245), (180, 225, 245)),
    "blue": ((45, 125, 220), (35, 60, 160)),
    "purple": ((145, 85, 200), (95, 45, 140)),
    "pink": ((245, 130, 180), (235, 65, 145), (250, 190, 205)),
    "brown": ((130, 80, 45), (85, 50, 35), (165, 105, 65)),
    "tan": ((230, 195, 150), (205, 165, 120)),
}
NAMES = tuple(COLORS)
LEAST_SHARE = 0.15  # of the drawing's pixels; a smaller part is no main colour
MOST_COLORS = 2
_BITS = 5  # of each channel in the table of names


def main_colors(pixels: np.ndarray, most: int = MOST_COLORS, least_share: float = LEAST_SHARE) -> list[str]:
    """Return the names of the most common colours of `pixels` ([N, 3] uint8), the most common one first.

    The first colour is named whatever its share is. No pixels have no colour.
    """
    if not len(pixels):
        return []
    shares = np.bincount(name_indices(pixels), minlength=len(NAMES)) / len(pixels)
    order = np.argsort(-shares, kind="stable")[:most]
    return [NAMES[i] for rank, i in enumerate(order) if rank == 0 or shares[i] >= least_share]


def name_indices(pixels: np.ndarray) -> np.ndarray:
    """Return the index in `NAMES` of every pixel.  # [..., 3] uint8 -> [...] int64"""
    r, g, b = np.moveaxis(pixels >> (8 - _BITS), -1, 0).astype(np.int64)
    return _table()[(r << (2 * _BITS)) | (g << _BITS) | b]


def name_of(rgb: Sequence[int] | np.ndarray) -> str:
    """Return the name of one colour, three values of 0..255."""
    return NAMES[int(name_indices(np.asarray(rgb, np.uint8)))]


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of sRGB in 0..255, for the white point D65 (IEC 61966-2-1, CIE 15).  # [..., 3] float64"""
    linear = rgb.astype(np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@functools.cache
def _table() -> np.ndarray:
    """The index of the name of every colour, in steps of 2^(8 - _BITS) per channel."""
    levels = (np.arange(1 << _BITS) << (8 - _BITS)) + (1 << (7 - _BITS))  # the middle of each step
    cube = to_lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3))
    owners = np.repeat(np.arange(len(NAMES)), [len(anchors) for anchors in COLORS.values()])
    anchors = to_lab(np.array([anchor for anchors in COLORS.values() for anchor in anchors]))
    squared = ((cube[:, None] - anchors[None]) ** 2).sum(-1)
    return owners[squared.argmin(1)]

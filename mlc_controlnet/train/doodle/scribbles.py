"""Draws the control images of a picture: scribbles as a hand would draw them, and a grid of its colours.

Scribbles are white lines on black. A hand leaves lines out, draws them beside where they belong, and has a pen of some
width; `random_scribble` does all this by chance, so that a model learns to read quick drawings. `plain_scribble` is
the fixed one that judging uses.
"""

import numpy as np
from PIL import Image

from mlc_controlnet.images.annotators import color

CANNY = (60, 140)  # thresholds on a picture of plain areas: fainter than photographs want
SIGMAS = (0.8, 2.2)  # pixels, of the blur before the edges: large ones keep only the main lines
PEN_WIDTHS = (1, 2, 3, 4, 5)  # pixels
SHIFTS = (0.0, 1.6)  # pixels, the largest displacement of a line by an unsteady hand
COLOR_CELL = 16  # pixels of a side of the colour grid's cells
_PLAIN_SIGMA, _PLAIN_PEN = 1.2, 2
_SHORTEST = 6  # pixels; a shorter piece of a line is a speck


def edges(pixels: np.ndarray, sigma: float = _PLAIN_SIGMA, low: int = CANNY[0], high: int = CANNY[1]) -> np.ndarray:
    """Return Canny's edges of any of the three channels, one pixel wide.  # [H, W, 3] uint8 -> [H, W] uint8, 0 or 255

    Three channels: two areas of equal grey and different colour have an edge too.
    """
    import cv2

    blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
    across, down = (
        np.take_along_axis(gradients, np.abs(gradients).argmax(-1)[..., None], -1)[..., 0]
        for gradients in (cv2.Sobel(blurred, cv2.CV_16S, 1, 0), cv2.Sobel(blurred, cv2.CV_16S, 0, 1))
    )
    return np.asarray(cv2.Canny(np.ascontiguousarray(across), np.ascontiguousarray(down), low, high))


def plain_lines(pixels: np.ndarray) -> np.ndarray:
    """Return the lines of a picture, one pixel wide and without specks.  # [H, W, 3] -> [H, W] uint8, 0 or 255"""
    return _without_pieces(edges(pixels), np.random.default_rng(0), share=0.0)


def plain_scribble(pixels: np.ndarray) -> np.ndarray:
    """Draw all lines of a picture where they are, with a thin pen.  # [H, W, 3] uint8 -> [H, W, 3] uint8"""
    return _as_image(_thickened(plain_lines(pixels), _PLAIN_PEN))


def random_scribble(pixels: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a picture's lines as some hand would.

    Args:
        pixels: [H, W, 3] uint8.
        alpha: where the artwork is, for scribbles of its outline alone.  # [H, W] uint8

    Returns [H, W, 3] uint8.
    """
    if rng.random() < 0.1:
        lines = edges(np.repeat(alpha[..., None], 3, -1))
    else:
        strictness = rng.uniform(0.6, 2.0)
        lines = edges(pixels, rng.uniform(*SIGMAS), int(CANNY[0] * strictness), int(CANNY[1] * strictness))
    lines = _without_pieces(lines, rng, share=rng.choice([0.0, 0.0, 0.1, 0.3]))
    if rng.random() < 0.4:
        lines = _broken(lines, rng)
    lines = _thickened(lines, int(rng.choice(PEN_WIDTHS)))
    return _as_image(_displaced(lines, rng.uniform(*SHIFTS), rng))


def color_grid(pixels: np.ndarray) -> np.ndarray:
    """Return the picture as plain cells of `COLOR_CELL` pixels on a side.  # [H, W, 3] uint8 -> [H, W, 3] uint8"""
    return np.asarray(color(Image.fromarray(pixels), COLOR_CELL))


def _without_pieces(lines: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Leave out specks, and a share of the other connected pieces but the longest one."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    lengths = stats[:, cv2.CC_STAT_AREA]
    kept = (lengths >= _SHORTEST) & (rng.random(count) >= share)
    if count > 1:
        kept[1 + int(lengths[1:].argmax())] = True
    kept[0] = False  # what is no line
    return np.where(kept[labels], 255, 0).astype(np.uint8)


def _broken(lines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wipe out a few small discs, as where a pen leaves the paper."""
    import cv2

    height, width = lines.shape
    wiped = lines.copy()
    for _ in range(int(rng.integers(1, 9))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(wiped, centre, int(rng.integers(3, 9)), 0, -1)
    return wiped


def _thickened(lines: np.ndarray, pen: int) -> np.ndarray:
    import cv2

    if pen == 1:
        return lines
    return np.asarray(cv2.dilate(lines, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pen, pen))))


def _displaced(lines: np.ndarray, largest: float, rng: np.random.Generator) -> np.ndarray:
    """Move every pixel along a smooth random field, at most `largest` pixels in each direction."""
    import cv2

    height, width = lines.shape
    cells = int(rng.integers(5, 17))  # few: the whole drawing bends; many: the hand shakes
    field = cv2.resize(rng.uniform(-largest, largest, (cells, cells, 2)).astype(np.float32), (width, height))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(cv2.remap(lines, columns + field[..., 0], rows + field[..., 1], cv2.INTER_LINEAR))


def _as_image(lines: np.ndarray) -> np.ndarray:
    return np.repeat(lines[..., None], 3, -1)

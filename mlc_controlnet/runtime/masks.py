"""Masks, which are white where the model repaints: soften one, and find the part of the picture that it selects.

Twin: web/src/engine/masks.ts.
"""

import math

import numpy as np

from mlc_controlnet.runtime.crop import Crop


def blur_mask(mask: np.ndarray, mask_blur: float) -> np.ndarray:
    """Blur a mask with a Gaussian along x, then along y, as sd-webui does.

    mask: uint8 [H, W], as is the result. mask_blur: the standard deviation in pixels, 0 or more. The kernel has
    2 floor(2.5 mask_blur + 0.5) + 1 taps; borders are mirrored without a repetition of the outermost pixel.
    """
    radius = math.floor(2.5 * mask_blur + 0.5)
    box = _painted_box(mask)
    if radius == 0 or box is None:
        return mask
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / mask_blur) ** 2)
    taps /= taps.sum()
    # No pixel farther from the painted ones becomes grey. One more, so that what a border inside mirrors is black.
    around = tuple(slice(max(start - radius - 1, 0), end + radius + 1) for start, end in box)
    blurred = np.zeros_like(mask)
    blurred[around] = _blur_rows(_blur_rows(mask[around], taps).T, taps).T
    return blurred


def crop_around(mask: np.ndarray, height: int, width: int, padding: int) -> Crop | None:
    """Find the part of a picture that shows every pixel of its mask that is not black, and `padding` pixels around.

    The part grows to the aspect ratio of `height` x `width`, the size at which it is drawn, and moves or shrinks where
    it would leave the picture. This is diffusers' VaeImageProcessor.get_crop_region.

    mask: uint8 [picture height, picture width]. Returns None for a mask that is black everywhere.
    """
    picture_height, picture_width = mask.shape
    box = _painted_box(mask)
    if box is None:
        return None
    (top, bottom), (left, right) = box
    top, bottom = max(top - padding, 0), min(bottom + padding, picture_height)
    left, right = max(left - padding, 0), min(right + padding, picture_width)
    aspect = width / height
    if (right - left) / (bottom - top) > aspect:
        top, bottom = _grow(top, bottom, math.trunc((right - left) / aspect - (bottom - top)), picture_height)
    else:
        left, right = _grow(left, right, math.trunc((bottom - top) * aspect - (right - left)), picture_width)
    return Crop(left, top, right, bottom, picture_height, picture_width)


def _painted_box(mask: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the rows and the columns, start and end, that hold every pixel that is not black; None if all are."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def _blur_rows(mask: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolve the rows of uint8 [H, W] with an odd number of symmetric taps that sum to 1."""
    radius, width = len(taps) // 2, mask.shape[1]
    padded = np.pad(mask, ((0, 0), (radius, radius)), mode="reflect").astype(np.float64)
    total = np.zeros(mask.shape)
    for offset, tap in enumerate(taps):
        total += tap * padded[:, offset : offset + width]
    return np.floor(total + 0.5).astype(np.uint8)


def _grow(start: int, end: int, growth: int, limit: int) -> tuple[int, int]:
    """Lengthen start..end by `growth`, half on each side, inside of 0..limit as far as there is room."""
    start -= growth // 2
    end += growth - growth // 2
    if end > limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)

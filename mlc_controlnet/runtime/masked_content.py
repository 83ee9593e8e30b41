"""What a repainted part starts from: sd-webui's "masked content". Twin: web/src/engine/masked_content.ts.

`fill` continues the colours around the part into it; `original` keeps the picture; `latent noise` and `latent nothing`
replace the part's latents too, by the noise of the drawing and by zeros (AUTOMATIC1111, modules masking and
processing). The rule of `fill` is a stack of layers. Each is the picture without the part, blurred, and covers the
wider ones below it as far as it is opaque.
"""

import math

import numpy as np
from PIL import Image

from mlc_controlnet.runtime.mask_options import LATENT_NOISE, LATENT_NOTHING

LAYERS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # standard deviation of the blur in pixels, how often
BOXES = 3  # Pillow's Gaussian is so many box filters after each other


def fill(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Fill the part of a picture that is white in its mask with the colours around it, blurred.

    picture: RGB, as is the result; mask: L, of the same size; where it is black, the pixels stay. Computes in float64,
    where sd-webui rounds every layer to 8 bits. If the mask is white everywhere, the result is black.
    """
    opacity = 1 - np.asarray(mask, np.float64)[..., None] / 255  # [H, W, 1]
    known = np.concatenate([np.asarray(picture) * opacity, opacity], axis=2)  # [H, W, 4]: colours times opacity
    result = np.zeros_like(known)
    for radius, repeats in LAYERS:
        layer = gaussian(known, radius)
        seen = (1 - layer[..., 3:]) ** repeats  # the share of what is below that shines through
        result = result * seen + layer * _repeated(layer[..., 3:], seen, repeats)
    color, opacity = result[..., :3], result[..., 3:]
    shown = np.divide(color, opacity, out=np.zeros_like(color), where=opacity > 0)
    return Image.fromarray(np.floor(np.clip(shown, 0, 255) + 0.5).astype(np.uint8))


def mask_latents(latents: np.ndarray, noise: np.ndarray, mask: np.ndarray, masked_content: str) -> np.ndarray:
    """Return the latents that a repainted picture starts from; but for the two kinds of latent content, its own.

    latents, noise: float32 [1, C, h, w], as is the result; mask: float32 [1, 1, h, w], 1 where the model repaints.
    """
    if masked_content == LATENT_NOISE:
        return latents * (1 - mask) + noise * mask
    return latents * (1 - mask) if masked_content == LATENT_NOTHING else latents


def gaussian(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Blur float64 [H, W, C] as Pillow's GaussianBlur does, by box filters whose sides are fractions of pixels.

    Args:
        radius: the standard deviation in pixels; 0 blurs nothing. Edges are continued.
    """
    if radius == 0:
        return pixels
    half = _box_radius(radius)
    for axis in (1, 0):
        for _ in range(BOXES):
            pixels = _box(pixels, half, axis)
    return pixels


def _box_radius(radius: float) -> float:
    """Return half the side of a box, without its centre, so that BOXES of them have the variance of the Gaussian."""
    variance = radius * radius / BOXES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return whole + rest


def _box(pixels: np.ndarray, half: float, axis: int) -> np.ndarray:
    """Average over `half` pixels on both sides; the outermost two count by their share."""
    whole, length = math.floor(half), pixels.shape[axis]
    rest = half - whole
    places = np.clip(np.arange(-whole - 1, length + whole + 1), 0, length - 1)
    padded = np.moveaxis(pixels.take(places, axis), axis, 0)
    sums = np.concatenate([np.zeros_like(padded[:1]), padded.cumsum(axis=0)])
    inner = sums[2 * whole + 2 : 2 * whole + 2 + length] - sums[1 : 1 + length]
    outer = padded[:length] + padded[2 * whole + 2 :]
    return np.moveaxis((inner + rest * outer) / (2 * half + 1), 0, axis)


def _repeated(opacity: np.ndarray, seen: np.ndarray, repeats: int) -> np.ndarray:
    """Return by how much a layer counts that covers itself: 1 + (1 - opacity) + (1 - opacity)^2 + ..."""
    return np.divide(1 - seen, opacity, out=np.full_like(opacity, repeats), where=opacity > 1e-6)

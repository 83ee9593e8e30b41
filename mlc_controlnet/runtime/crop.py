"""Cut a part out of a picture at the model's size, and put the drawn part back at its own size.

The resampling is that of diffusers' VaeImageProcessor: `resize_mode` "fill" on the way in, "crop" on the way back.
Twin: web/src/engine/crop.ts.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Crop:
    """The part of a picture that is drawn, in pixels of that picture: left <= x < right, top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int
    picture_height: int  # of the whole picture
    picture_width: int

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.bottom - self.top

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The part as Pillow names it."""
        return self.left, self.top, self.right, self.bottom


def cut_out(picture: Image.Image, crop: Crop, height: int, width: int) -> Image.Image:
    """Scale the part to fit into `height` x `width`, keep its aspect ratio, and extend its edges to the full size.

    picture: of the crop's picture size, mode L or RGB, as is the result. Only a part that the picture's border
    cut off has another aspect ratio than `height` x `width`, apart from a rounding.
    """
    part = picture.crop(crop.box)
    if width * part.height < part.width * height:
        size = width, max(1, part.height * width // part.width)
    else:
        size = max(1, part.width * height // part.height), height
    content = np.asarray(part.resize(size, Image.Resampling.LANCZOS))  # [<= H, <= W] or [<= H, <= W, 3]
    return Image.fromarray(_extend(_extend(content, height, axis=0), width, axis=1))


def put_back(picture: Image.Image, crop: Crop) -> Image.Image:
    """Undo `cut_out`: scale a picture to cover the part's size, and crop it around its center."""
    if crop.width * picture.height > picture.width * crop.height:
        size = crop.width, picture.height * crop.width // picture.width
    else:
        size = picture.width * crop.height // picture.height, crop.height
    left, top = size[0] // 2 - crop.width // 2, size[1] // 2 - crop.height // 2
    scaled = picture.resize(size, Image.Resampling.LANCZOS)
    return scaled.crop((left, top, left + crop.width, top + crop.height))


def _extend(content: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Extend uint8 pixels on both ends of an axis to `length`, evenly."""
    count = content.shape[axis]
    before = length // 2 - count // 2
    first = _edge(content.take([0], axis), content.take([min(1, count - 1)], axis))
    last = _edge(content.take([count - 1], axis), content.take([max(0, count - 2)], axis))
    after = length - count - before
    return np.concatenate([first.repeat(before, axis), content, last.repeat(after, axis)], axis)


def _edge(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the pixels that continue an edge: those that Pillow's bicubic filter gives for a box without extent."""
    return np.floor(np.clip(1.125 * outer - 0.125 * inner, 0, 255) + 0.5).astype(np.uint8)

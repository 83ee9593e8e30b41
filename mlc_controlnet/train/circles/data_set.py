"""Writes a data set of circles in fill50k's format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlc_controlnet.train.circles.drawing import IMAGE_SIZE, draw_source, draw_target, random_circle
from mlc_controlnet.train.data import fill50k


def generate_circles(
    folder: Path, count: int, seed: int, log: Callable[[str], None] = print, pixels: int = IMAGE_SIZE
) -> None:
    """Write `count` circles to `folder`, unless it holds a set already. The same seed gives the same circles.

    Args:
        pixels: height and width of the pictures.
    """
    if (folder / "prompt.json").is_file():
        return
    log(f"data: {count} circles are drawn")
    rng = np.random.default_rng(seed)
    circles = (random_circle(rng, pixels) for _ in range(count))
    examples = (fill50k.Example(draw_source(c, pixels), draw_target(c, pixels), c.prompt) for c in circles)
    fill50k.write(folder, examples)
    log(f"data: {count} circles of {pixels} x {pixels} written to {folder}")

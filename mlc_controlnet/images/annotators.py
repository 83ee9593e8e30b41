"""Annotators: functions that make a control image from a picture."""

from collections.abc import Callable

import numpy as np
from PIL import Image

CANNY_LOW, CANNY_HIGH = 100, 200  # hysteresis thresholds of lllyasviel/ControlNet, gradio_canny2image.py


def canny(picture: Image.Image) -> Image.Image:
    """Find Canny's edges as OpenCV does: white lines on black.

    RGB of any size -> L of the same size, with the values 0 and 255 only. Needs the package opencv-python-headless.
    """
    import cv2  # the import takes a while, so only a run that uses it imports it

    return Image.fromarray(cv2.Canny(np.asarray(picture), CANNY_LOW, CANNY_HIGH))


ANNOTATORS: dict[str, Callable[[Image.Image], Image.Image]] = {"canny": canny}

"""A control image made on the fly: Canny's edges of the picture itself."""

import numpy as np

LOW, HIGH = 100, 200  # hysteresis thresholds, ControlNet's own (lllyasviel/ControlNet, gradio_canny2image.py)


def canny(picture: np.ndarray) -> np.ndarray:
    """White edges on black.  # [H, W, 3] uint8 RGB -> [H, W, 1] uint8, 0 or 255"""
    import cv2  # only runs that ask for it pay for the import

    return cv2.Canny(picture, LOW, HIGH)[..., None]

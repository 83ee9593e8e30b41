"""Annotators: functions that make a control image from a picture. They need the package opencv-python-headless.

Each takes RGB of any size and returns L or RGB of the same size. Names are ControlNet 1.1's.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

CANNY_LOW, CANNY_HIGH = 100, 200  # hysteresis thresholds of lllyasviel/ControlNet, gradio_canny2image.py
SCRIBBLE_SIGMAS = (0.5, 5.0)  # pixels: of a line, and of what is beside it
SCRIBBLE_THRESHOLD = 16  # of 255: a darker difference is no line
SOFT_EDGE_SIGMAS = (1.0, 2.0, 4.0)  # pixels
LINE_ART_SIGMA = 6.0  # pixels: strokes are narrower
FAINT, FAINTEST_STROKE = 8.0, 16.0  # of 255: what is no stroke; a median stroke that is not made any lighter
TILE_FACTOR = 8  # how many pixels of a side become one
BLUR_SIGMA = 9.0  # pixels
COLOR_FACTOR = 64  # how many pixels of a side become one colour
THRESHOLD_LEVEL = 127  # of 255: what is lighter becomes white
NORMAL_BACKGROUND = 0.4  # 0..1: depth below it is taken for flat, as in lllyasviel/ControlNet, annotator/midas
NORMAL_DEPTH = 6.3  # of the normals before they are made unit vectors; about 2 pi, as there


def canny(picture: Image.Image, low: float = CANNY_LOW, high: float = CANNY_HIGH) -> Image.Image:
    """Find Canny's edges as OpenCV does: white lines on black, with the values 0 and 255 only.

    low, high: thresholds of hysteresis, for a gradient of |gx| + |gy|.
    """
    import cv2  # the import takes a while, so only a run that uses it imports it

    return Image.fromarray(cv2.Canny(np.asarray(picture), low, high))


def scribble(picture: Image.Image, threshold: float = SCRIBBLE_THRESHOLD) -> Image.Image:
    """Draw white lines where the picture is darker than its surroundings: a thresholded difference of Gaussians.

    It is the first step of XDoG (Winnemoeller, Kyprianidis and Olsen 2012, eq. 1), with the values 0 and 255 only.

    threshold: of 255; a darker difference is no line.
    """
    fine, coarse = (_blurred(picture, sigma) for sigma in SCRIBBLE_SIGMAS)
    darker = (coarse - fine).max(axis=2)
    return Image.fromarray(np.where(darker > threshold, 255, 0).astype(np.uint8))


def soft_edge(picture: Image.Image) -> Image.Image:
    """Draw soft white edges: the mean of gradient magnitudes at three scales, the strongest edge white."""
    import cv2

    edges = np.zeros((picture.height, picture.width), np.float32)
    for sigma in SOFT_EDGE_SIGMAS:
        blurred = _blurred(picture, sigma)
        across, down = (cv2.Sobel(blurred, cv2.CV_32F, 1 - axis, axis) for axis in (0, 1))
        edges += sigma * np.hypot(across, down).max(axis=2)
    return _to_grey(255 * edges / max(float(edges.max()), 1.0))


def line_art(picture: Image.Image) -> Image.Image:
    """Draw white strokes where the picture has dark ones: what is darker than its surroundings, as grey."""
    strokes = (_blurred(picture, LINE_ART_SIGMA) - np.asarray(picture, np.float32)).max(axis=2).clip(0, 255)
    visible = strokes[strokes > FAINT]
    median = float(np.median(visible)) if visible.size else FAINTEST_STROKE
    return _to_grey(127 * strokes / max(median, FAINTEST_STROKE))


def tile(picture: Image.Image, factor: int = TILE_FACTOR) -> Image.Image:
    """Take away the details: the picture at a fraction of its size, 1 / factor, enlarged again. RGB."""
    width, height = (max(1, side // factor) for side in picture.size)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.LANCZOS)


def blur(picture: Image.Image, sigma: float = BLUR_SIGMA) -> Image.Image:
    """Blur the picture with a Gaussian of `sigma` pixels. RGB."""
    return Image.fromarray(np.rint(_blurred(picture, sigma)).astype(np.uint8))


def color(picture: Image.Image, factor: int = COLOR_FACTOR) -> Image.Image:
    """Take away all but the colours: a grid of cells of `factor` pixels on a side, each of one colour. RGB."""
    import cv2

    cells = [max(1, side // factor) for side in picture.size]
    small = cv2.resize(np.asarray(picture.convert("RGB")), cells, interpolation=cv2.INTER_AREA)
    return Image.fromarray(cv2.resize(small, picture.size, interpolation=cv2.INTER_NEAREST))


def threshold(picture: Image.Image, level: float = THRESHOLD_LEVEL) -> Image.Image:
    """Draw white where the picture is lighter than `level` of 255, with the values 0 and 255 only."""
    import cv2

    grey = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2GRAY)
    return Image.fromarray(cv2.threshold(grey, level, 255, cv2.THRESH_BINARY)[1])


def normal(picture: Image.Image, background: float = NORMAL_BACKGROUND, depth: float = NORMAL_DEPTH) -> Image.Image:
    """Draw the normals of a depth picture, in which near is light, as colours: x red, y green, z blue. RGB.

    What is darker than `background`, 0..1, counts as flat; a greater `depth` makes all slopes flatter. It is the second
    half of the annotator for normal maps of lllyasviel/ControlNet 1.0, annotator/midas.
    """
    import cv2

    near = np.float32(cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2GRAY)) / np.float32(255)
    slopes = [cv2.Sobel(near, cv2.CV_32F, 1 - axis, axis) for axis in (0, 1)]
    flat = [np.where(near < background, 0, slope) for slope in slopes]
    normals = np.stack([*flat, np.full_like(near, depth)], axis=2)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    return Image.fromarray(np.rint(127.5 * normals + 127.5).astype(np.uint8))


ANNOTATORS: dict[str, Callable[..., Image.Image]] = {
    "canny": canny,
    "scribble": scribble,
    "softedge": soft_edge,
    "lineart": line_art,
    "tile": tile,
    "blur": blur,
    "color": color,
    "threshold": threshold,
    "normal": normal,
}


def _blurred(picture: Image.Image, sigma: float) -> np.ndarray:
    """Return [H, W, 3], float32 in 0..255."""
    import cv2

    blurred: np.ndarray = cv2.GaussianBlur(np.asarray(picture.convert("RGB"), np.float32), (0, 0), sigma)
    return blurred


def _to_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))

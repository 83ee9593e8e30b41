"""Draw one example of fill50k: the outline of a circle, its filled disc, and the prompt that names the colours."""

from dataclasses import dataclass

import numpy as np

from mlc_controlnet.train.circles.colors import COLORS

IMAGE_SIZE = 128  # pixels, H = W
MIN_RADIUS, MAX_RADIUS = 14.0, 48.0  # pixels
MARGIN = 4.0  # pixels between the disc and the edge of the picture


@dataclass(frozen=True)
class Circle:
    """A disc of the colour `fill` on the colour `background`; both are keys of COLORS, and lengths are in pixels."""

    center_x: float
    center_y: float
    radius: float
    outline_width: float
    fill: str
    background: str

    @property
    def prompt(self) -> str:
        """The prompt that describes this circle."""
        return f"{self.fill} circle with {self.background} background"


def random_circle(rng: np.random.Generator, size: int = IMAGE_SIZE) -> Circle:
    """Choose the centre, radius, outline width (1 to 2 pixels) and two different colours at random, all uniformly."""
    scale = size / IMAGE_SIZE
    radius = rng.uniform(MIN_RADIUS, MAX_RADIUS) * scale
    low, high = radius + MARGIN * scale, size - radius - MARGIN * scale
    fill, background = rng.choice(sorted(COLORS), size=2, replace=False)
    return Circle(
        center_x=rng.uniform(low, high),
        center_y=rng.uniform(low, high),
        radius=radius,
        outline_width=rng.uniform(1.0, 2.0),
        fill=str(fill),
        background=str(background),
    )


def _distance_to_center(circle: Circle, size: int) -> np.ndarray:
    """Return the distance of each pixel's middle to the circle's centre, [H, W] in pixels."""
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return np.hypot(x - circle.center_x, y - circle.center_y)


def disc_mask(circle: Circle, size: int = IMAGE_SIZE) -> np.ndarray:
    """Return a mask that is true inside the disc, [H, W] bool."""
    return _distance_to_center(circle, size) <= circle.radius


def draw_target(circle: Circle, size: int = IMAGE_SIZE) -> np.ndarray:
    """Draw the filled disc with an edge softened over one pixel, [H, W, 3] uint8."""
    coverage = np.clip(circle.radius - _distance_to_center(circle, size) + 0.5, 0, 1)[..., None]
    fill, background = np.array(COLORS[circle.fill]), np.array(COLORS[circle.background])
    return np.rint(coverage * fill + (1 - coverage) * background).astype(np.uint8)


def draw_source(circle: Circle, size: int = IMAGE_SIZE) -> np.ndarray:
    """Draw the control image, a white outline on black, [H, W, 3] uint8."""
    off_the_line = np.abs(_distance_to_center(circle, size) - circle.radius)
    coverage = np.clip(circle.outline_width / 2 - off_the_line + 0.5, 0, 1)[..., None]
    return np.repeat(np.rint(255 * coverage), 3, axis=-1).astype(np.uint8)

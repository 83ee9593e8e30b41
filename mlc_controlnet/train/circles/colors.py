"""The 24 CSS colour names that `circles` knows.

The names are CSS Color Module Level 4 keywords. Eight are given (gold, navy, red, white, green, purple, orange,
black); the others are, one after the other, far from all chosen before them in RGB, so that "which named colour is
this pixel nearest to" has a clear answer. The closest pair is gold and orange, 50 apart.
"""

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "aqua": (0, 255, 255),
    "aquamarine": (127, 255, 212),
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "blueviolet": (138, 43, 226),
    "chartreuse": (127, 255, 0),
    "deeppink": (255, 20, 147),
    "dodgerblue": (30, 144, 255),
    "gold": (255, 215, 0),
    "gray": (128, 128, 128),
    "green": (0, 128, 0),
    "lime": (0, 255, 0),
    "magenta": (255, 0, 255),
    "navy": (0, 0, 128),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "red": (255, 0, 0),
    "saddlebrown": (139, 69, 19),
    "springgreen": (0, 255, 127),
    "tan": (210, 180, 140),
    "teal": (0, 128, 128),
    "tomato": (255, 99, 71),
    "violet": (238, 130, 238),
    "white": (255, 255, 255),
}


def nearest_color(rgb: np.ndarray) -> str:
    """Name the colour that lies nearest to `rgb` ([3], 0..255) in Euclidean RGB distance."""
    return min(COLORS, key=lambda name: float(np.linalg.norm(np.asarray(COLORS[name], np.float64) - rgb)))

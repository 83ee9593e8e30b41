"""The 24 CSS colour names that `circles` knows.

The names are keywords of CSS Color Module Level 4. Eight are common colours (gold, navy, red, white, green, purple,
orange, black). The others were chosen one by one, each far in RGB from all colours before it, so that a pixel's nearest
colour is clear. The closest pair is gold and orange, at a distance of 50.
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
    """Return the name of the colour nearest to `rgb` ([3], 0..255) in Euclidean RGB distance."""
    return min(COLORS, key=lambda name: float(np.linalg.norm(np.asarray(COLORS[name], np.float64) - rgb)))

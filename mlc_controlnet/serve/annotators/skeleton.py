"""A person's joints, drawn as OpenPose draws them: what ControlNets for poses were trained on."""

import colorsys

import numpy as np
from PIL import Image

# Pairs of OpenPose's 18 joints: nose, neck, right shoulder, elbow, wrist, left ones, right hip, knee, ankle, left ones,
# right eye, left eye, right ear, left ear.
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
COLORS = tuple(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / 18, 1, 1)) for i in range(18))
NECK = 1
_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)  # COCO's 17 joints have no neck
_SHOULDERS = (5, 6)  # of COCO
_WIDTH = 4 / 512  # of a limb, and the radius of a joint, as a share of the picture's shorter side
_LIMB_BRIGHTNESS = 0.6
SURE = 0.3  # a joint below this score is not drawn


def to_openpose(joints: np.ndarray) -> np.ndarray:
    """Turn [17, 3] of COCO, or [18 or more, 3] of OpenPose, into [18, 3]: x, y, score."""
    if len(joints) >= 18:
        return joints[:18]
    shoulders = joints[list(_SHOULDERS)]
    neck = np.array([*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min()])
    return np.stack([neck if place is None else joints[place] for place in _OF_COCO])


def draw_skeleton(joints: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw [18, 3], x and y in 0..1 and a score, on black."""
    import cv2

    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    radius = max(1, round(_WIDTH * min(size)))
    places = [(round(float(x) * width), round(float(y) * height)) for x, y, _ in joints]
    sure = joints[:, 2] >= SURE
    for color, (a, b) in zip(COLORS, LIMBS, strict=False):
        if sure[a] and sure[b]:
            middle = tuple((p + q) // 2 for p, q in zip(places[a], places[b], strict=True))
            across, down = places[b][0] - places[a][0], places[b][1] - places[a][1]
            axes = (round(float(np.hypot(across, down)) / 2), radius)
            cv2.ellipse(canvas, middle, axes, float(np.degrees(np.arctan2(down, across))), 0, 360, color, -1)
    canvas = (canvas * _LIMB_BRIGHTNESS).astype(np.uint8)
    for color, place, is_sure in zip(COLORS, places, sure, strict=True):
        if is_sure:
            cv2.circle(canvas, place, radius, color, -1)
    return Image.fromarray(canvas)

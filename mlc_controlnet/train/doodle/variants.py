"""Draws a variant of an artwork: mirrored, moved, scaled, in other hues, on a plain ground whose colour has a name."""

from dataclasses import dataclass

import numpy as np

from mlc_controlnet.train.doodle.artworks import SIZE, Artwork
from mlc_controlnet.train.doodle.colors import COLORS, main_colors, name_of
from mlc_controlnet.train.randomness import seed_of

WHITE = (255, 255, 255)
GROUNDS = ("white", "light blue", "yellow", "pink", "green", "gray", "orange", "purple", "blue", "black", "teal", "tan")
WHITE_SHARE = 0.4
HUE_SHARE = 0.3  # of the variants; the others keep the artwork's hues
SCALES = (0.68, 0.95)  # of the picture's side
OPAQUE = 128  # of 255: from here on a pixel belongs to the thing


@dataclass(frozen=True)
class Variant:
    """How a picture is made from an artwork.

    Attributes:
        mirrored: left and right exchanged.
        scale: side of the artwork in sides of the picture.
        x, y: the artwork's centre, 0..1.
        hue: turn of all hues, in degrees.
        ground: the colour behind the artwork, RGB in 0..255.
        words: seed of the caption's choice of words.
    """

    mirrored: bool = False
    scale: float = 0.9
    x: float = 0.5
    y: float = 0.5
    hue: float = 0.0
    ground: tuple[int, int, int] = WHITE
    words: int = 0


@dataclass(frozen=True)
class Picture:
    """A picture and what a caption can say about it.

    Attributes:
        pixels: [SIZE, SIZE, 3] uint8.
        alpha: the share of the artwork in every pixel.  # [SIZE, SIZE] uint8
        colors: names of the artwork's main colours in this picture.
        ground: name of the ground's colour.
    """

    pixels: np.ndarray
    alpha: np.ndarray
    colors: list[str]
    ground: str


def random_variant(seed: int, artwork: Artwork, number: int) -> Variant:
    """Return variant `number` of an artwork: the same arguments give the same variant."""
    rng = np.random.default_rng(seed_of(seed, artwork.thing, artwork.style, number))
    scale = rng.uniform(*SCALES)
    room = (1 - scale) / 2
    turned = rng.random() < HUE_SHARE
    return Variant(
        mirrored=bool(rng.random() < 0.5),
        scale=scale,
        x=0.5 + rng.uniform(-room, room),
        y=0.5 + rng.uniform(-room, room),
        hue=float(rng.uniform(40, 320)) if turned else 0.0,
        ground=WHITE if rng.random() < WHITE_SHARE else _random_ground(rng),
        words=int(rng.integers(2**31)),
    )


def draw(artwork: np.ndarray, variant: Variant) -> Picture:
    """Draw a variant of an artwork ([SIZE, SIZE, 4] uint8, not multiplied by alpha)."""
    import cv2

    rgb, alpha = artwork[..., :3], artwork[..., 3:].astype(np.float32) / 255
    if variant.hue:
        rgb = _turn_hues(rgb, variant.hue)
    layers = np.concatenate([rgb * alpha, 255 * alpha], -1).astype(np.float32)  # multiplied, so that edges keep colours
    side = SIZE * variant.scale
    sign = -1 if variant.mirrored else 1
    # Pixel centres are at halves: u = sign * scale * (s - 63.5) + centre - 0.5.
    across = [sign * variant.scale, 0.0, SIZE * variant.x - 0.5 - sign * variant.scale * (SIZE - 1) / 2]
    down = [0.0, variant.scale, SIZE * variant.y - side / 2 + variant.scale / 2 - 0.5]
    moved = cv2.warpAffine(layers, np.array([across, down]), (SIZE, SIZE), flags=cv2.INTER_AREA)
    covered = moved[..., 3:] / 255
    pixels = moved[..., :3] + (1 - covered) * np.array(variant.ground, np.float32)
    opaque = moved[..., 3].clip(0, 255).astype(np.uint8)
    drawn = np.rint(pixels.clip(0, 255)).astype(np.uint8)
    return Picture(drawn, opaque, main_colors(drawn[opaque >= OPAQUE]), name_of(variant.ground))


def _random_ground(rng: np.random.Generator) -> tuple[int, int, int]:
    """Return a tone near an anchor of a named colour, with the same name."""
    name = GROUNDS[int(rng.integers(1, len(GROUNDS)))]
    anchors = COLORS[name]
    anchor = np.array(anchors[int(rng.integers(len(anchors)))])
    tone = (anchor + rng.integers(-12, 13, 3)).clip(0, 255)
    tone = tone if name_of(tone) == name else anchor
    return int(tone[0]), int(tone[1]), int(tone[2])


def _turn_hues(rgb: np.ndarray, degrees: float) -> np.ndarray:
    import cv2

    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)

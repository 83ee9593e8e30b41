"""Writes the caption of a picture: its colours, its name, keywords, its style and its ground.

A picture has many captions, from "cat" to "orange and white cat, pet, flat style, light blue background", so that the
model understands what visitors type. Two things are never left out: a colour that is not the artwork's own, and a
ground that is not white.
"""

import numpy as np

from mlc_controlnet.train.doodle.artworks import Artwork
from mlc_controlnet.train.doodle.variants import Picture, Variant

COLORS_SHARE, KEYWORDS_SHARE, STYLE_SHARE, WHITE_GROUND_SHARE = 0.7, 0.35, 0.7, 0.5
KEYWORD_ALONE_SHARE = 0.1  # of the captions; a keyword instead of the name
MOST_KEYWORDS = 2


def full_caption(artwork: Artwork, picture: Picture) -> str:
    """Return the caption that judging uses: colours, name, style and ground."""
    return _joined(_colored(artwork.thing, picture), [], f"{artwork.style} style", picture.ground)


def random_caption(artwork: Artwork, picture: Picture, variant: Variant) -> str:
    """Return the caption that `variant.words` chooses."""
    rng = np.random.default_rng(variant.words)
    keywords = [str(word) for word in rng.permutation(artwork.keywords)]
    name = keywords.pop() if keywords and rng.random() < KEYWORD_ALONE_SHARE else artwork.thing
    tells_colors = bool(variant.hue) or rng.random() < COLORS_SHARE
    tells_keywords, tells_style = rng.random() < KEYWORDS_SHARE, rng.random() < STYLE_SHARE
    tells_ground = picture.ground != "white" or rng.random() < WHITE_GROUND_SHARE
    return _joined(
        _colored(name, picture) if tells_colors else name,
        keywords[: int(rng.integers(1, MOST_KEYWORDS + 1))] if tells_keywords else [],
        f"{artwork.style} style" if tells_style else None,
        picture.ground if tells_ground else None,
    )


def _colored(name: str, picture: Picture) -> str:
    return f"{' and '.join(picture.colors)} {name}" if picture.colors else name


def _joined(name: str, keywords: list[str], style: str | None, ground: str | None) -> str:
    return ", ".join([name, *keywords, *([style] if style else []), *([f"{ground} background"] if ground else [])])

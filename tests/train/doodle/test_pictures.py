"""Colours, variants and captions: what a caption says is what the picture shows."""

import numpy as np
import pytest

from mlc_controlnet.train.doodle.artworks import Artwork, ArtworkSet
from mlc_controlnet.train.doodle.captions import full_caption, random_caption
from mlc_controlnet.train.doodle.colors import COLORS, main_colors, name_of, to_lab
from mlc_controlnet.train.doodle.pictures import Pictures
from mlc_controlnet.train.doodle.variants import GROUNDS, WHITE_SHARE, Variant, draw, random_variant


def test_every_anchor_has_its_own_name() -> None:
    assert all(name_of(anchor) == name for name, anchors in COLORS.items() for anchor in anchors)


def test_lab_is_that_of_the_standard() -> None:
    """CIE L*a*b* of sRGB's primaries at D65, as Lindbloom's calculator gives them."""
    wanted = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(to_lab(255 * np.eye(3)), wanted, atol=0.05)


def test_the_most_common_colour_comes_first_and_small_parts_are_not_named() -> None:
    red, blue, green = ([228, 40, 50], [45, 125, 220], [90, 175, 70])
    pixels = np.array([red] * 30 + [blue] * 60 + [green] * 10, np.uint8)
    assert main_colors(pixels) == ["blue", "red"]
    assert main_colors(pixels, most=1) == ["blue"]
    assert main_colors(pixels[:0]) == []


def pixels_of(artwork_set: ArtworkSet, thing: str) -> np.ndarray:
    return artwork_set.pixels[artwork_set.things()[thing][0]]


def test_a_mirrored_drawing_is_the_mirror_image(artwork_set: ArtworkSet) -> None:
    tip = pixels_of(artwork_set, "yellow tip").copy()
    tip[:, 64:] = 0
    plain, mirrored = (draw(tip, Variant(mirrored=m)).pixels for m in (False, True))
    np.testing.assert_array_equal(plain, mirrored[:, ::-1])
    assert (plain != mirrored).any()


def test_a_scaled_and_moved_drawing_lies_where_the_variant_says(artwork_set: ArtworkSet) -> None:
    box = draw(pixels_of(artwork_set, "blue box"), Variant(scale=0.5, x=0.25, y=0.75)).alpha > 128
    rows, columns = np.nonzero(box)
    side = 0.5 * 128 * 22 / 32
    assert rows.mean() + 0.5 == pytest.approx(96, abs=0.5) and columns.mean() + 0.5 == pytest.approx(32, abs=0.5)
    assert np.ptp(rows) + 1 == pytest.approx(side, abs=1.5)


def test_a_turned_hue_changes_the_named_colour(artwork_set: ArtworkSet) -> None:
    disc = pixels_of(artwork_set, "red disc")
    assert draw(disc, Variant()).colors == ["red"]
    assert draw(disc, Variant(hue=120)).colors == ["green"]


def test_grounds_have_their_names_and_two_fifths_are_white() -> None:
    artwork = Artwork("cat", ("pet",), "animals", "flat")
    names = [name_of(random_variant(0, artwork, number).ground) for number in range(400)]
    assert set(names) == set(GROUNDS)
    assert names.count("white") / 400 == pytest.approx(WHITE_SHARE, abs=0.08)


def test_a_number_always_gives_the_same_picture(artwork_set: ArtworkSet) -> None:
    pictures = Pictures(artwork_set, [0, 3, 5], variants=4, seed=0)
    assert len(pictures) == 12
    np.testing.assert_array_equal(pictures.draw(7).pixels, pictures.draw(7).pixels)
    assert pictures.describe(7)[0] == 3
    assert pictures.describe(4)[2] == Variant(words=3)  # the first variant is the artwork as it is


def test_a_caption_names_a_turned_hue_and_a_ground_that_is_not_white(artwork_set: ArtworkSet) -> None:
    artwork = artwork_set.artworks[artwork_set.things()["red disc"][0]]
    disc = pixels_of(artwork_set, "red disc")
    for words in range(50):
        variant = Variant(hue=120, ground=COLORS["pink"][0], words=words)
        caption = random_caption(artwork, draw(disc, variant), variant)
        assert caption.startswith("green ") and caption.endswith(", pink background")


def test_captions_vary_and_the_full_one_says_everything(artwork_set: ArtworkSet) -> None:
    row = artwork_set.things()["blue box"][0]
    artwork, picture = artwork_set.artworks[row], draw(artwork_set.pixels[row], Variant())
    assert full_caption(artwork, picture) == "blue blue box, glossy style, white background"
    assert len({random_caption(artwork, picture, Variant(words=words)) for words in range(50)}) > 10

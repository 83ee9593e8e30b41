import numpy as np

from mlc_controlnet.train.doodle.artworks import Artwork, ArtworkSet, slug, split
from tests.train.doodle.conftest import SHAPES, STYLES


def test_symbols_sequences_and_clocks_are_left_out_and_aliases_followed(artwork_set: ArtworkSet) -> None:
    assert set(artwork_set.things()) == set(SHAPES)
    assert {artwork.style for artwork in artwork_set.artworks} == set(STYLES)


def test_a_drawing_is_rendered_on_a_transparent_ground(artwork_set: ArtworkSet) -> None:
    disc = artwork_set.pixels[artwork_set.things()["red disc"][0]]
    assert disc.shape == (128, 128, 4)
    assert disc[0, 0, 3] == 0
    assert disc[64, 64].tolist() == [0xE0, 0x28, 0x32, 255]


def test_a_name_becomes_the_key_of_the_icon_sets() -> None:
    assert slug("man’s shoe") == "mans-shoe"
    assert slug("person in suit levitating") == "person-in-suit-levitating"


def test_held_out_things_are_in_no_style_and_held_out_pictures_in_others() -> None:
    artworks = tuple(Artwork(f"thing {i}", (), "objects", style) for style in "abcd" for i in range(20))
    everything = ArtworkSet(artworks, np.zeros((80, 1, 1, 4), np.uint8))
    parts = split(everything, held_out_things=5, held_out_pictures=6, seed=0)
    seen = {artworks[row].thing for row in parts.train}
    assert sorted([*parts.train, *parts.things, *parts.pictures]) == list(range(80))
    assert len(parts.things) == 4 * 5 and not seen & {artworks[row].thing for row in parts.things}
    assert len(parts.pictures) == 6 and {artworks[row].thing for row in parts.pictures} <= seen
    assert parts == split(everything, held_out_things=5, held_out_pictures=6, seed=0)
